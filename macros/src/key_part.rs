//! `#[derive(KeyPart)]`, for newtypes.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{Data, DeriveInput, Field, Member, Type, parse_quote, spanned::Spanned};

use crate::paths::Runtime;

pub(crate) fn expand(item: TokenStream) -> TokenStream {
    let newtype = syn::parse2::<DeriveInput>(item).and_then(|input| {
        let (member, ty) = only_field(&input)?;
        Ok(emit(&input, &member, &ty))
    });
    newtype.unwrap_or_else(|mistake| mistake.to_compile_error())
}

fn only_field(input: &DeriveInput) -> syn::Result<(Member, Type)> {
    let Data::Struct(data) = &input.data else {
        let message = "only a struct with one field is a key part by derive; implement `effectively::KeyPart` for this type by hand";
        return Err(syn::Error::new_spanned(&input.ident, message));
    };
    let mut fields = data.fields.members().zip(&data.fields);
    match (fields.next(), fields.next()) {
        (Some((member, Field { ty, .. })), None) => Ok((member, ty.clone())),
        _ => {
            let message = "a key part has one field; name the fields in the key instead: `key = \"{id.tenant}/{id.number}\"`";
            Err(syn::Error::new_spanned(&input.ident, message))
        }
    }
}

fn emit(input: &DeriveInput, member: &Member, ty: &Type) -> TokenStream {
    let private = Runtime::new(None).private(Span::call_site());
    let mut generics = input.generics.clone();
    let is_generic = input.generics.type_params().any(|parameter| {
        ty.to_token_stream()
            .into_iter()
            .any(|token| parameter.ident == token.to_string())
    });
    if is_generic {
        generics
            .make_where_clause()
            .predicates
            .push(parse_quote!(#ty: #private::KeyPart));
    }
    let (ident, (generics, arguments, bounds)) = (&input.ident, generics.split_for_impl());
    let at_type = Runtime::new(None).private(ty.span());
    let part = quote_spanned!(ty.span().resolved_at(Span::call_site())=> #at_type::KeyPart::key_part(&self.#member));
    quote! {
        impl #generics #private::KeyPart for #ident #arguments #bounds {
            fn key_part(&self) -> #private::Cow<'_, str> {
                #part
            }
        }
    }
}
