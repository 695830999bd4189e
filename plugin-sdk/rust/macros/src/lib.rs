//! The attribute macro of `innkeeper-sdk`. Use it through that crate, as `innkeeper_sdk::handler`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Attribute, Error, Expr, ExprLit, FnArg, Ident, ItemFn, Lit, Meta, Result, ReturnType, Type};

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
    if !attribute.is_empty() {
        return Err(Error::new_spanned(attribute, "`#[handler]` takes no arguments"));
    }
    let function: ItemFn = syn::parse2(item.clone())
        .map_err(|error| Error::new(error.span(), "`#[handler]` belongs on a function"))?;
    let args = check_signature(&function)?;
    let ident = &function.sig.ident;
    let visibility = &function.vis;
    let name = handler_name(ident)?;
    let summary = summary(&function.attrs);
    let (schema, call) = match args {
        None => (
            quote!(|| ::core::option::Option::None),
            quote!(|context, _| ::innkeeper_sdk::__private::call(#ident, context)),
        ),
        Some(args) => (
            quote_spanned! {args.span()=>
                || ::core::option::Option::Some(::innkeeper_sdk::__private::schema_of::<#args>())
            },
            quote_spanned! {args.span()=>
                |context, args| ::innkeeper_sdk::__private::call_with_args(#ident, context, args)
            },
        ),
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
fn check_signature(function: &ItemFn) -> Result<Option<&Type>> {
    const TAKES: &str = "a handler takes `&Context` and at most one argument after it";
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
    let mut inputs = signature.inputs.iter();
    match inputs.next() {
        Some(FnArg::Typed(first)) if matches!(*first.ty, Type::Reference(_)) => {}
        Some(other) => return Err(Error::new_spanned(other, TAKES)),
        None => return Err(Error::new_spanned(&signature.ident, TAKES)),
    }
    let args = match inputs.next() {
        Some(FnArg::Typed(args)) => Some(&*args.ty),
        Some(FnArg::Receiver(receiver)) => return Err(Error::new_spanned(receiver, TAKES)),
        None => None,
    };
    match inputs.next() {
        Some(third) => Err(Error::new_spanned(third, TAKES)),
        None => Ok(args),
    }
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
        assert_eq!(refusal(quote!(name = "x"), ok), "`#[handler]` takes no arguments");
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
}
