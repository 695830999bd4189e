//! The attribute macro of `innkeeper-sdk`. Use it through that crate, as `innkeeper_sdk::handler`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Attribute, Error, Expr, ExprLit, FnArg, Ident, ItemFn, Lit, Meta, Result, ReturnType, Type};

mod transaction;

/// Makes a function a job handler.
///
/// The function takes the `&Context` of its execution and, if it wants, one more argument of a
/// type that implements `serde::Deserialize` and `schemars::JsonSchema`. It returns a `Result`
/// of something that serializes to JSON; its error is a `Failure`, or anything that converts
/// into one.
///
/// - Its name, with hyphens for underscores, is the handler's name: `prune_audit_log` is
///   configured as `handler = "prune-audit-log"`.
/// - The first paragraph of its doc comment is the handler's summary.
/// - The type of its second argument becomes the JSON Schema that the host checks arguments by.
///   Without a second argument the handler accepts any arguments and ignores them.
///
/// # One transaction for the whole call
///
/// `#[handler(transaction)]` begins a transaction before the function and passes it, between the
/// context and the arguments:
///
/// ```text
/// #[handler(transaction)]
/// fn close_month(ctx: &Context, tx: &Transaction, args: Args) -> Result<Report, Failure> {
/// ```
///
/// It is committed when the function returns `Ok`, after the result was written as JSON: a result
/// that the host cannot keep commits nothing. It is rolled back when the function returns an error,
/// panics, is stopped by its time-out, or the host dies. Where the commit fails, the handler fails, as
/// with any other error of the database: retryably after a conflict.
///
/// The functions of `innkeeper_sdk::db` stay what they are: each is a transaction of its own, which
/// sees nothing of this one and stays committed when this one is rolled back. On SQLite, which has
/// one writer at a time, those that write are refused while this one is open.
///
/// Options, all of which may be left out:
///
/// ```text
/// #[handler(transaction(database = "billing", isolation = "serializable", read_only))]
/// ```
///
/// - `database`: one that the operator granted to the plugin, else its default.
/// - `isolation`: `"read-committed"`, `"repeatable-read"` or `"serializable"`, else the database's
///   default.
/// - `read_only`: the database refuses changes. On SQLite such a transaction never waits for a writer.
///
/// The function stays what it is and can be called from other code and from tests. List it in
/// `innkeeper_sdk::plugin!` to export it. A type of the same name is made beside it, so no module
/// or type in its scope can have that name.
#[proc_macro_attribute]
pub fn handler(attribute: proc_macro::TokenStream, item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let item = TokenStream::from(item);
    match expand(&attribute.into(), &item) {
        Ok(generated) => quote!(#item #generated),
        // The function is kept, so that this error is the only one.
        Err(error) => {
            let error = error.into_compile_error();
            quote!(#item #error)
        }
    }
    .into()
}

/// What is generated beside the function: an uninhabited type of the same name, which lives in
/// another namespace. `plugin!` and `use` then need no more than the function's own path.
fn expand(attribute: &TokenStream, item: &TokenStream) -> Result<TokenStream> {
    let transaction = transaction::parse(attribute)?;
    let function: ItemFn = syn::parse2(item.clone())
        .map_err(|error| Error::new(error.span(), "`#[handler]` belongs on a function"))?;
    let args = check_signature(&function, transaction.is_some())?;
    let ident = &function.sig.ident;
    let visibility = &function.vis;
    let name = handler_name(ident)?;
    let summary = summary(&function.attrs);
    let schema = match args {
        None => quote!(|| ::core::option::Option::None),
        Some(args) => quote_spanned! {args.span()=>
            || ::core::option::Option::Some(::innkeeper_sdk::__private::schema_of::<#args>())
        },
    };
    let call = match (args, transaction) {
        (None, None) => quote!(|context, _| ::innkeeper_sdk::__private::call(#ident, context)),
        (Some(args), None) => quote_spanned! {args.span()=>
            |context, args| ::innkeeper_sdk::__private::call_with_args(#ident, context, args)
        },
        (None, Some(options)) => quote! {
            |context, _| ::innkeeper_sdk::__private::call_in_transaction(#ident, #options, context)
        },
        (Some(args), Some(options)) => quote_spanned! {args.span()=>
            |context, args| {
                ::innkeeper_sdk::__private::call_with_args_in_transaction(#ident, #options, context, args)
            }
        },
    };
    Ok(quote! {
        #[doc(hidden)]
        #[allow(non_camel_case_types)]
        #visibility enum #ident {}

        impl ::innkeeper_sdk::__private::Handler for #ident {
            const ENTRY: ::innkeeper_sdk::__private::Entry = ::innkeeper_sdk::__private::Entry {
                name: #name,
                summary: #summary,
                args_schema: #schema,
                call: #call,
            };
        }
    })
}

/// Checks what the compiler would report in words about generated code, and returns the type of
/// the handler's arguments.
fn check_signature(function: &ItemFn, in_transaction: bool) -> Result<Option<&Type>> {
    let signature = &function.sig;
    if let Some(token) = &signature.asyncness {
        return Err(Error::new_spanned(
            token,
            "a handler is not `async`: the host runs each in its own instance",
        ));
    }
    if let Some(token) = &signature.unsafety {
        return Err(Error::new_spanned(token, "a handler is not `unsafe`: the host calls it"));
    }
    if let Some(parameter) = signature.generics.params.first() {
        return Err(Error::new_spanned(parameter, "a handler is not generic: the host calls it by its name"));
    }
    if matches!(signature.output, ReturnType::Default) {
        let message = "a handler returns a `Result`, such as `Result<(), Failure>`";
        return Err(Error::new_spanned(&signature.ident, message));
    }
    check_inputs(function, in_transaction)
}

fn check_inputs(function: &ItemFn, in_transaction: bool) -> Result<Option<&Type>> {
    let (references, takes) = if in_transaction {
        (
            2,
            "a handler with `transaction` takes `&Context`, `&Transaction` and at most one argument after them",
        )
    } else {
        (1, "a handler takes `&Context` and at most one argument after it")
    };
    let signature = &function.sig;
    let mut inputs = signature.inputs.iter();
    for _ in 0..references {
        match inputs.next() {
            Some(FnArg::Typed(input)) if matches!(*input.ty, Type::Reference(_)) => {}
            Some(other) => return Err(Error::new_spanned(other, takes)),
            None => return Err(Error::new_spanned(&signature.ident, takes)),
        }
    }
    let args = match inputs.next() {
        Some(FnArg::Typed(args)) if is_reference_to(&args.ty, "Transaction") && !in_transaction => {
            let message = "write `#[handler(transaction)]` to be given a transaction";
            return Err(Error::new_spanned(args, message));
        }
        Some(FnArg::Typed(args)) => Some(&*args.ty),
        Some(FnArg::Receiver(receiver)) => return Err(Error::new_spanned(receiver, takes)),
        None => None,
    };
    match inputs.next() {
        Some(further) => Err(Error::new_spanned(further, takes)),
        None => Ok(args),
    }
}

fn is_reference_to(ty: &Type, name: &str) -> bool {
    let Type::Reference(reference) = ty else { return false };
    let Type::Path(path) = &*reference.elem else { return false };
    path.path.segments.last().is_some_and(|segment| segment.ident == name)
}

/// The function's name in kebab-case.
fn handler_name(ident: &Ident) -> Result<String> {
    let written = ident.to_string();
    let written = written.strip_prefix("r#").unwrap_or(&written);
    let is_word = |word: &str| {
        word.starts_with(|first: char| first.is_ascii_lowercase())
            && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    if written.split('_').all(is_word) {
        return Ok(written.replace('_', "-"));
    }
    let message = format!(
        "`{written}` makes no handler name: use lower-case words that start with a letter, \
         with single underscores between them, such as `prune_audit_log`"
    );
    Err(Error::new(ident.span(), message))
}

/// The first paragraph of the doc comment, in one line; empty where there is none.
fn summary(attributes: &[Attribute]) -> String {
    let text: Vec<String> = attributes.iter().filter_map(doc_text).collect();
    let paragraph: Vec<&str> = text
        .iter()
        .flat_map(|lines| lines.split('\n'))
        .map(str::trim)
        .skip_while(|line| line.is_empty())
        .take_while(|line| !line.is_empty())
        .collect();
    paragraph.join(" ")
}

fn doc_text(attribute: &Attribute) -> Option<String> {
    let Meta::NameValue(doc) = &attribute.meta else { return None };
    match &doc.value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) if doc.path.is_ident("doc") => Some(text.value()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proc_macro2::Span;

    use super::*;

    fn refusal(attribute: TokenStream, item: TokenStream) -> String {
        expand(&attribute, &item).unwrap_err().to_string()
    }

    #[test]
    fn a_function_name_becomes_a_kebab_case_handler_name() {
        let name = |text: &str| handler_name(&Ident::new(text, Span::call_site())).unwrap();
        assert_eq!(name("cleanup_expired_sessions"), "cleanup-expired-sessions");
        assert_eq!(name("poll"), "poll");
        assert_eq!(name("step2_of3"), "step2-of3");
        assert_eq!(handler_name(&Ident::new_raw("move", Span::call_site())).unwrap(), "move");
    }

    #[test]
    fn a_function_name_that_is_not_lower_case_words_is_refused() {
        for text in ["_private", "twice__under", "trailing_", "camelCase", "part_2", "über"] {
            let error = handler_name(&Ident::new(text, Span::call_site())).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn the_summary_is_the_first_paragraph_in_one_line() {
        let function: ItemFn = syn::parse_quote! {
            ///
            /// Deletes sessions
            /// that expired.
            ///
            /// In batches.
            #[inline]
            fn f() {}
        };
        assert_eq!(summary(&function.attrs), "Deletes sessions that expired.");
    }

    #[test]
    fn without_a_doc_comment_the_summary_is_empty() {
        let function: ItemFn = syn::parse_quote! { #[inline] fn f() {} };
        assert_eq!(summary(&function.attrs), "");
    }

    #[test]
    fn what_is_no_handler_is_refused_with_what_to_write_instead() {
        let none = TokenStream::new;
        let ok = quote!(
            fn f(ctx: &Context) -> Result<(), Failure> {
                Ok(())
            }
        );
        assert!(refusal(quote!(name = "x"), ok).contains("no option of `#[handler]`"));
        assert!(
            refusal(
                none(),
                quote!(
                    struct S;
                )
            )
            .contains("on a function")
        );
        assert!(
            refusal(
                none(),
                quote!(
                    async fn f(c: &Context) -> R {}
                )
            )
            .contains("not `async`")
        );
        assert!(
            refusal(
                none(),
                quote!(
                    unsafe fn f(c: &Context) -> R {}
                )
            )
            .contains("not `unsafe`")
        );
        assert!(
            refusal(
                none(),
                quote!(
                    fn f<T>(c: &Context, a: T) -> R {}
                )
            )
            .contains("not generic")
        );
        assert!(
            refusal(
                none(),
                quote!(
                    fn f(c: &Context) {}
                )
            )
            .contains("returns a `Result`")
        );
        for wrong in [
            quote!(
                fn f() -> R {}
            ),
            quote!(
                fn f(self) -> R {}
            ),
            quote!(
                fn f(args: Args) -> R {}
            ),
            quote!(
                fn f(c: &Context, a: A, b: B) -> R {}
            ),
        ] {
            assert!(refusal(none(), wrong).contains("takes `&Context`"));
        }
    }

    #[test]
    fn a_handler_with_a_transaction_is_called_with_its_options() {
        let options = quote!(transaction(database = "billing", isolation = "serializable", read_only));
        let function = quote!(
            fn f(ctx: &Context, tx: &Transaction, args: Args) -> R {}
        );
        let generated = expand(&options, &function).unwrap().to_string();
        for part in ["call_with_args_in_transaction", "\"billing\"", "Serializable", "read_only : true"] {
            assert!(generated.contains(part), "{part}: {generated}");
        }
        let function = quote!(
            fn f(ctx: &Context, tx: &Transaction) -> R {}
        );
        let generated = expand(&quote!(transaction), &function).unwrap().to_string();
        assert!(generated.contains("call_in_transaction"), "{generated}");
    }

    #[test]
    fn a_transaction_that_does_not_fit_the_function_is_refused_with_what_to_write_instead() {
        for wrong in [
            quote!(
                fn f(ctx: &Context) -> R {}
            ),
            quote!(
                fn f(ctx: &Context, args: Args) -> R {}
            ),
            quote!(
                fn f(tx: &Transaction) -> R {}
            ),
            quote!(
                fn f(ctx: &Context, tx: Transaction) -> R {}
            ),
            quote!(
                fn f(ctx: &Context, args: Args, tx: &Transaction) -> R {}
            ),
            quote!(
                fn f(ctx: &Context, tx: &Transaction, a: A, b: B) -> R {}
            ),
        ] {
            let message = refusal(quote!(transaction), wrong);
            assert!(message.contains("takes `&Context`, `&Transaction` and"), "{message}");
        }
        let function = quote!(
            fn f(ctx: &Context, tx: &db::Transaction) -> R {}
        );
        assert!(refusal(TokenStream::new(), function).contains("write `#[handler(transaction)]`"));
    }
}
