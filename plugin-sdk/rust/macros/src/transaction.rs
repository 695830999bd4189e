//! `transaction` of `#[handler]`, and its options.

use proc_macro2::TokenStream;
use quote::{ToTokens as _, quote};
use syn::parse::Parser as _;
use syn::punctuated::Punctuated;
use syn::{Error, Expr, ExprLit, Lit, LitStr, Meta, MetaNameValue, Result, Token};

const OPTIONS: &str = "`database = \"…\"`, `isolation = \"…\"` and `read_only`";

/// How to open the transaction.
#[derive(Default)]
struct Options {
    database: Option<LitStr>,
    /// A case of `Isolation`.
    isolation: Option<TokenStream>,
    read_only: bool,
}

/// Reads what stands in `#[handler(…)]`: nothing, or `transaction` with or without options, which
/// are returned as an expression of the type `BeginOptions`.
pub(crate) fn parse(attribute: &TokenStream) -> Result<Option<TokenStream>> {
    let mut found = None;
    for meta in list(attribute.clone())? {
        if !meta.path().is_ident("transaction") {
            let message = format!(
                "`{}` is no option of `#[handler]`: there is only `transaction`, with or without {OPTIONS} in \
                 parentheses",
                name(&meta)
            );
            return Err(Error::new_spanned(meta, message));
        }
        let options = match &meta {
            Meta::Path(_) => Options::default(),
            Meta::List(options) => Options::parse(options.tokens.clone())?,
            Meta::NameValue(_) => {
                let message = format!("write `transaction` alone, or with {OPTIONS} in parentheses");
                return Err(Error::new_spanned(meta, message));
            }
        };
        if found.replace(options.expression()).is_some() {
            return Err(Error::new_spanned(meta, "`transaction` is given twice"));
        }
    }
    Ok(found)
}

fn list(tokens: TokenStream) -> Result<Punctuated<Meta, Token![,]>> {
    Punctuated::parse_terminated.parse2(tokens)
}

fn name(meta: &Meta) -> String {
    meta.path().to_token_stream().to_string()
}

impl Options {
    fn parse(tokens: TokenStream) -> Result<Self> {
        let mut options = Self::default();
        for meta in list(tokens)? {
            let twice = Error::new_spanned(&meta, format!("`{}` is given twice", name(&meta)));
            let before = match &meta {
                Meta::Path(path) if path.is_ident("read_only") => {
                    std::mem::replace(&mut options.read_only, true)
                }
                Meta::NameValue(option) if option.path.is_ident("database") => {
                    options.database.replace(text(option)?).is_some()
                }
                Meta::NameValue(option) if option.path.is_ident("isolation") => {
                    options.isolation.replace(isolation(&text(option)?)?).is_some()
                }
                _ => return Err(unknown(&meta)),
            };
            if before {
                return Err(twice);
            }
        }
        Ok(options)
    }

    fn expression(self) -> TokenStream {
        let Self { database, isolation, read_only } = self;
        let none = || quote!(::core::option::Option::None);
        let some = |value: TokenStream| quote!(::core::option::Option::Some(#value));
        let database = database.map_or_else(none, |name| some(quote!(::std::string::String::from(#name))));
        let isolation =
            isolation.map_or_else(none, |case| some(quote!(::innkeeper_sdk::db::Isolation::#case)));
        quote! {
            ::innkeeper_sdk::db::BeginOptions {
                database: #database,
                isolation: #isolation,
                read_only: #read_only,
            }
        }
    }
}

fn unknown(meta: &Meta) -> Error {
    let name = name(meta);
    let message = match name.as_str() {
        "database" | "isolation" => format!("write `{name} = \"…\"`"),
        "read_only" => "write `read_only` alone, or leave it out".to_owned(),
        _ => format!("`{name}` is no option of `transaction`: they are {OPTIONS}"),
    };
    Error::new_spanned(meta, message)
}

fn text(option: &MetaNameValue) -> Result<LitStr> {
    match &option.value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Ok(text.clone()),
        other => Err(Error::new_spanned(other, "write a text in double quotes here")),
    }
}

fn isolation(level: &LitStr) -> Result<TokenStream> {
    match level.value().as_str() {
        "read-committed" => Ok(quote!(ReadCommitted)),
        "repeatable-read" => Ok(quote!(RepeatableRead)),
        "serializable" => Ok(quote!(Serializable)),
        other => {
            let message = format!(
                "`{other}` is no isolation level: write \"read-committed\", \"repeatable-read\" or \
                 \"serializable\""
            );
            Err(Error::new_spanned(level, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(attribute: TokenStream) -> Option<String> {
        parse(&attribute).unwrap().map(|options| options.to_string().replace(' ', ""))
    }

    fn refusal(attribute: TokenStream) -> String {
        parse(&attribute).unwrap_err().to_string()
    }

    #[test]
    fn a_transaction_has_the_options_that_are_written_and_the_defaults_for_others() {
        assert_eq!(parsed(TokenStream::new()), None);
        let plain = parsed(quote!(transaction)).unwrap();
        assert!(plain.contains("database:::core::option::Option::None"), "{plain}");
        assert!(plain.contains("read_only:false"), "{plain}");
        assert_eq!(parsed(quote!(transaction())), Some(plain));
        let all =
            parsed(quote!(transaction(read_only, isolation = "repeatable-read", database = "b",))).unwrap();
        for part in ["String::from(\"b\")", "Isolation::RepeatableRead", "read_only:true"] {
            assert!(all.contains(part), "{all}");
        }
    }

    #[test]
    fn what_is_no_option_is_refused_with_what_to_write_instead() {
        for (attribute, said) in [
            (quote!(name = "x"), "`name` is no option of `#[handler]`: there is only `transaction`"),
            (quote!(transactional), "`transactional` is no option of `#[handler]`"),
            (quote!(transaction = "billing"), "write `transaction` alone, or with `database"),
            (quote!(transaction, transaction), "`transaction` is given twice"),
            (quote!(transaction(retries = 3)), "`retries` is no option of `transaction`: they are `database"),
            (quote!(transaction(database)), "write `database = \"…\"`"),
            (quote!(transaction(database = billing)), "write a text in double quotes here"),
            (quote!(transaction(database = "a", database = "b")), "`database` is given twice"),
            (quote!(transaction(read_only = true)), "write `read_only` alone"),
            (quote!(transaction(read_only, read_only)), "`read_only` is given twice"),
            (
                quote!(transaction(isolation = "snapshot")),
                "`snapshot` is no isolation level: write \"read-com",
            ),
        ] {
            let message = refusal(attribute);
            assert!(message.starts_with(said), "{message}");
        }
    }
}
