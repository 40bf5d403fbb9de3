//! The inside of a rewritten function: gather the key, lend the transaction to the user's body, leave.

use std::time::Duration;

use proc_macro2::{Delimiter, Group, Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{ext::IdentExt, spanned::Spanned};

use super::{
    emit::{content, ledger_name, ledger_type, local},
    model::{Key, Operation},
};
use crate::{
    template::{Part, Template},
    value_path,
};

pub(super) fn block(operation: &Operation) -> Group {
    let private = operation.private();
    let (ledger, handler, call) = (ledger(operation), handler(operation), call(operation));
    let inside = quote!(#ledger #handler #call);
    let inside = if operation.detach {
        quote!(#private::detach(async move { #inside }).await)
    } else {
        inside
    };
    let mut block = Group::new(Delimiter::Brace, inside);
    block.set_span(operation.func.body.span().resolved_at(Span::mixed_site()));
    block
}

/// `from = …`: borrowed, so it may also be a method's result or behind a pointer.
fn ledger(operation: &Operation) -> Option<TokenStream> {
    let source = operation.ledger?;
    let (name, ty) = (local("ledger"), ledger_type(operation));
    let borrowed = quote_spanned!(source.span().resolved_at(Span::mixed_site())=> &(#source));
    Some(quote!(let #name: &#ty = #borrowed;))
}

/// What is known while compiling, as a constant.
fn handler(operation: &Operation) -> TokenStream {
    let private = operation.private();
    let (name, scope, retries) = (local("handler"), &operation.scope, operation.retries);
    let function = format!("::{} (", operation.func.sig.ident);
    let (retention, wait) = (
        duration(operation, operation.retention),
        duration(operation, operation.wait),
    );
    let isolation = Ident::new(operation.isolation, Span::call_site());
    let on_error = Ident::new(operation.on_error, Span::call_site());
    quote! {
        let #name = const {
            &#private::Handler {
                scope: #scope,
                place: ::core::concat!(::core::module_path!(), #function, ::core::file!(), ":", ::core::line!(), ")"),
                retention: #retention,
                wait: #wait,
                isolation: #private::Isolation::#isolation,
                on_error: #private::OnError::#on_error,
                retries: #retries,
            }
        };
    }
}

fn duration(operation: &Operation, duration: Option<Duration>) -> TokenStream {
    let private = operation.private();
    match duration {
        Some(duration) => {
            let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
            quote!(::core::option::Option::Some(#private::Duration::new(#seconds, #nanos)))
        }
        None => quote!(::core::option::Option::None),
    }
}

/// One call; with `retries`, a loop of them.
fn call(operation: &Operation) -> TokenStream {
    let (end, handler, turns, returned) = (
        local("end"),
        local("handler"),
        local("turns"),
        local("returned"),
    );
    let (gather, ran, leave) = (gather(operation), ran(operation), leave(operation));
    if operation.retries == 0 {
        return quote! {
            #gather
            let #end = #ran;
            #leave
        };
    }
    let span = operation.returns.span();
    let at_type = operation.private_at(span);
    let first_turn =
        quote_spanned!(span.resolved_at(Span::call_site())=> #at_type::Turns::of(#handler));
    quote! {
        let mut #turns = #first_turn;
        loop {
            #gather
            let #end = #ran;
            match #leave {
                ::core::ops::ControlFlow::Break(#returned) => break #returned,
                ::core::ops::ControlFlow::Continue(()) => {}
            }
        }
    }
}

/// Key and fingerprint, before the body takes the bindings.
fn gather(operation: &Operation) -> Option<TokenStream> {
    let key = operation.key.as_ref()?;
    let (name, fingerprint) = (local("key"), local("fingerprint"));
    let (key, contents) = (key_of(operation, key), contents(operation, key));
    Some(quote! {
        let #name = #key;
        let #fingerprint = #contents;
    })
}

fn key_of(operation: &Operation, key: &Key) -> TokenStream {
    let private = operation.private();
    let (handler, parts) = (local("handler"), local("parts"));
    let Some(template) = &key.template else {
        return quote!(#private::key(#handler).finish_shared());
    };
    let steps = template.parts.iter().map(|part| match part {
        Part::Literal(text) => quote!(let #parts = #parts.literal(#text);),
        Part::Path(path) => {
            // Not the literal's own span: the compiler would offer to replace the literal.
            let span = path.span.resolved_at(Span::call_site());
            let head = path
                .head
                .as_ref()
                .and_then(|name| operation.bindings.span(name))
                .unwrap_or(span);
            let value = path.tokens(head, span);
            quote_spanned!(span=> let #parts = (#value).__add_to_key(#parts);)
        }
    });
    let finish = Ident::new(
        if key.shared_by_all {
            "finish_shared"
        } else {
            "finish"
        },
        Span::call_site(),
    );
    let all_parts = Ident::new("parts", Span::mixed_site().located_at(key.span));
    let finish = quote_spanned!(key.span.resolved_at(Span::call_site())=> #all_parts.#finish());
    quote! {{
        use #private::AnyPart as _;
        let #parts = #handler.__begin_key();
        #(#steps)*
        #finish
    }}
}

fn contents(operation: &Operation, key: &Key) -> TokenStream {
    let private = operation.private();
    let contents = key.fingerprint.iter().map(|path| {
        let (span, private) = (path.span(), operation.private_at(path.span()));
        quote_spanned!(span.resolved_at(Span::call_site())=> #private::content(&(#path)))
    });
    quote!(#private::fingerprint([#(#contents),*]))
}

/// The claim and what the body returned, or why it did not run.
fn ran(operation: &Operation) -> TokenStream {
    let private = operation.private();
    let (claim, returned, early) = (local("claim"), local("returned"), local("early"));
    let (ledger, handler, key, fingerprint) = (
        ledger_name(operation),
        local("handler"),
        local("key"),
        local("fingerprint"),
    );
    let enter = match operation.key {
        Some(_) => quote!(#private::enter(&#ledger, #handler, #key, #fingerprint)),
        None => quote!(#private::enter_unkeyed(&#ledger, #handler)),
    };
    let returned_result = returned_result(operation, &body(operation));
    quote! {
        match #enter.await {
            ::core::result::Result::Ok(mut #claim) => {
                let #returned = #returned_result;
                ::core::result::Result::Ok((#claim, #returned))
            }
            ::core::result::Result::Err(#early) => ::core::result::Result::Err(#early),
        }
    }
}

/// What the body returned, as a `Result`. Asked for here, so that `leave` does not ask again for what the signature asked.
fn returned_result(operation: &Operation, body: &TokenStream) -> TokenStream {
    let ty = operation.returns;
    let (span, private) = (
        ty.span().resolved_at(Span::call_site()),
        operation.private_at(ty.span()),
    );
    quote_spanned!(span=> <#ty as #private::HandlerReturn>::into_result(#body))
}

/// The user's body, with the transaction under the user's name.
fn body(operation: &Operation) -> TokenStream {
    let private = operation.private();
    let tx = &operation.tx;
    let (attrs, pattern, connection) = (tx.attrs, tx.pattern, tx.connection);
    let copies = copies(operation);
    let root = operation.runtime.root(connection.span());
    let span = connection.span();
    let (here, claim) = (
        operation.private_at(span),
        Ident::new("claim", Span::mixed_site().located_at(span)),
    );
    let span = span.resolved_at(Span::call_site());
    let lent = quote_spanned!(span=> <#connection as #root::TxParam>::lent(#here::tx(&mut #claim)));
    let (ty, body) = (operation.returns, &operation.func.body);
    // The return that never happens tells the compiler the type of the block, since an `async` block cannot be given one.
    // The user's block is left whole behind it, so that "expected `Result`, found `()`" points at it.
    quote! {{
        #copies
        #(#attrs)*
        let #pattern: &mut #connection = #lent;
        #private::inside(async move {
            if false {
                return #private::typed::<#ty>();
            }
            #body
        })
        .await
    }}
}

/// `retries`: the bindings' own names, for copies of them.
fn copies(operation: &Operation) -> Option<TokenStream> {
    if operation.retries == 0 {
        return None;
    }
    let copies = operation.bindings.names.iter().map(|binding| {
        let (name, mutability, cfgs) = (&binding.ident, binding.mutability, &binding.cfgs);
        let (span, private) = (
            name.span().resolved_at(Span::call_site()),
            operation.private_at(name.span()),
        );
        let again = quote_spanned!(span=> #private::Again::again(&#name));
        // A binding that only the key names has no use for its copy. No `#[allow]`: it is an error where the lint is forbidden.
        let used = names(operation, name).then(|| quote!(#(#cfgs)* let _ = &#name;));
        quote!(#(#cfgs)* let #mutability #name = #again; #used)
    });
    Some(quote!(#(#copies)*))
}

/// Whether the key or the fingerprint names a binding.
fn names(operation: &Operation, binding: &Ident) -> bool {
    operation.key.as_ref().is_some_and(|key| {
        let parts = key.template.iter().flat_map(Template::paths);
        let heads = parts.filter_map(|path| path.head.clone());
        let contents = key.fingerprint.iter().filter_map(value_path::head);
        heads.chain(contents).any(|head| binding.unraw() == head)
    })
}

/// The end of the call, with the options that change types. It stands where the return type does, since most of what it
/// asks for is asked of that type.
fn leave(operation: &Operation) -> TokenStream {
    let place = operation.returns.span();
    let (private, content) = (operation.private_at(place), content(operation));
    let word = |text: &str| Ident::new(text, Span::call_site().located_at(place));
    let shape = word(if operation.transparent {
        "Transparent"
    } else {
        "Wrapped"
    });
    let on_error = word(operation.on_error);
    let at_place = |name: &str| Ident::new(name, Span::mixed_site().located_at(place));
    let (end, turns) = (at_place("end"), at_place("turns"));
    let span = place.resolved_at(Span::call_site());
    match (&operation.key, operation.retries) {
        (Some(_), 0) => {
            quote_spanned!(span=> #private::leave::<#content, #private::#on_error, #private::#shape, _, _, _>(#end).await)
        }
        (Some(_), _) => {
            quote_spanned!(span=> #private::leave_or_again::<#content, #private::#on_error, #private::#shape, _, _, _>(#end, &mut #turns).await)
        }
        (None, 0) => {
            quote_spanned!(span=> #private::commit::<#content, #private::#shape, _, _>(#end).await)
        }
        (None, _) => {
            quote_spanned!(span=> #private::commit_or_again::<#content, #private::#shape, _, _>(#end, &mut #turns).await)
        }
    }
}
