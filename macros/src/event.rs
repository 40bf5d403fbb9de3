//! `#[derive(Event)]`.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{Attribute, Data, DeriveInput, Fields, LitStr, Meta};

use crate::{
    diag::{Diag, instead},
    options,
    paths::Runtime,
    slot::{Read, Slot},
    template::{Part, Path, Root, Template},
    value_path::member as name,
    values::{self, Name, Text},
};

/// What `#[event(…)]` was given.
struct Args {
    topic: Slot<Name>,
    name: Slot<Name>,
    key: Slot<Text>,
    runtime: Slot<values::Runtime>,
}

impl Args {
    fn new() -> Self {
        Self {
            topic: Slot::new("topic", "topic = \"orders\""),
            name: Slot::new("name", "name = \"order.placed.v1\""),
            key: Slot::new("key", "key = \"{order_id}\""),
            runtime: Slot::new("crate", "crate = path::to::effectively"),
        }
    }

    fn slots(&mut self) -> [&mut dyn Read; 4] {
        [
            &mut self.topic,
            &mut self.name,
            &mut self.key,
            &mut self.runtime,
        ]
    }
}

pub(crate) fn expand(item: TokenStream) -> TokenStream {
    let input: DeriveInput = match syn::parse2(item) {
        Ok(input) => input,
        Err(mistake) => return mistake.to_compile_error(),
    };
    let diag = Diag::new();
    let args = read(&input, &diag);
    let template = args.key.value().map(|text| {
        let template = Template::parse(&text.0, Root::Field, &diag);
        check(&input, &template, &diag);
        template
    });
    let event = emit(&input, &args, template.as_ref());
    let mistakes = diag.finish();
    quote!(#event #mistakes)
}

fn read(input: &DeriveInput, diag: &Diag) -> Args {
    let mut args = Args::new();
    let mut understood = true;
    let is_event = |attribute: &&Attribute| attribute.path().is_ident("event");
    for attribute in input.attrs.iter().filter(is_event) {
        match &attribute.meta {
            Meta::List(list) => {
                understood &= options::read(list.tokens.clone(), &mut args.slots(), |_| None, diag);
            }
            Meta::Path(_) | Meta::NameValue(_) => {
                diag.at(attribute, "options stand in parentheses: `#[event(topic = \"orders\", name = \"order.placed.v1\")]`");
                understood = false;
            }
        }
    }
    if understood && (args.topic.span().is_none() || args.name.span().is_none()) {
        diag.at(&input.ident, "an event needs a topic and a name: `#[event(topic = \"orders\", name = \"order.placed.v1\")]`");
    }
    args
}

/// `key = "{oder_id}"`
fn check(input: &DeriveInput, template: &Template, diag: &Diag) {
    let Some(fields) = fields(input) else {
        if let Some(path) = template.paths().find(|path| path.head.is_some()) {
            diag.at_span(
                path.span,
                "only a struct has fields for a key; call a method: `key = \"{order_id()}\"`",
            );
        }
        return;
    };
    let names: Vec<_> = fields.members().map(|member| name(&member)).collect();
    let known: Vec<_> = names.iter().map(String::as_str).collect();
    for (head, span) in template
        .paths()
        .filter_map(|path| Some((path.head.as_deref()?, path.span)))
    {
        if !known.contains(&head) {
            diag.at_span(
                span,
                format!(
                    "no field `{head}` to build the partition key from{}",
                    instead(head, "the fields", &known)
                ),
            );
        }
    }
}

fn fields(input: &DeriveInput) -> Option<&Fields> {
    match &input.data {
        Data::Struct(data) => Some(&data.fields),
        Data::Enum(_) | Data::Union(_) => None,
    }
}

/// Emitted after a mistake too, with empty names: else every use of the event would be another error.
fn emit(input: &DeriveInput, args: &Args, template: Option<&Template>) -> TokenStream {
    let runtime = Runtime::new(args.runtime.value().map(|runtime| &runtime.0));
    let private = runtime.private(Span::call_site());
    let text = |slot: &Slot<Name>| {
        slot.value()
            .map_or_else(|| LitStr::new("", Span::call_site()), |name| name.0.clone())
    };
    let (topic, name) = (text(&args.topic), text(&args.name));
    let (ident, (generics, arguments, bounds)) = (&input.ident, input.generics.split_for_impl());
    let key = match template {
        Some(template) => partition_key(&private, input, template),
        None => quote!(::core::option::Option::None),
    };
    quote! {
        impl #generics #private::Event for #ident #arguments #bounds {
            const TOPIC: &'static str = #topic;
            const NAME: &'static str = #name;

            fn partition_key(&self) -> ::core::option::Option<#private::Cow<'_, str>> {
                #key
            }
        }
    }
}

fn partition_key(private: &TokenStream, input: &DeriveInput, template: &Template) -> TokenStream {
    let is_known = |path: &&Path| match (&path.head, fields(input)) {
        (None, _) => true,
        (Some(head), Some(fields)) => fields.members().any(|member| name(&member) == *head),
        (Some(_), None) => false,
    };
    let parts = template.parts.iter().filter_map(|part| match part {
        Part::Literal(text) => Some(quote!(&#text)),
        Part::Path(path) => is_known(&path).then(|| {
            let span = path.span.resolved_at(Span::call_site());
            let value = path.tokens(span, span);
            quote_spanned!(span=> &(#value))
        }),
    });
    quote!(#private::partition_key(&[#(#parts),*]))
}
