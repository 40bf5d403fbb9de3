//! Parameter types that are known clients of outside services. A type is recognised by its path as it is written; what is
//! behind an alias or inside another type is not seen, and the documentation says so.

use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::{
    Type, TypePath,
    visit_mut::{self, VisitMut},
};

/// Crate and type of a client. A crate that ends in `*` is a family.
const CLIENTS: [(&str, &str); 22] = [
    ("reqwest", "Client"),
    ("reqwest_middleware", "ClientWithMiddleware"),
    ("stripe", "Client"),
    ("lettre", "SmtpTransport"),
    ("lettre", "AsyncSmtpTransport"),
    ("aws_sdk_*", "Client"),
    ("aws_sdk_*", "Config"),
    ("awc", "Client"),
    ("hyper", "Client"),
    ("hyper_util", "Client"),
    ("isahc", "HttpClient"),
    ("surf", "Client"),
    ("ureq", "Agent"),
    ("tonic", "Channel"),
    ("rdkafka", "FutureProducer"),
    ("rdkafka", "ThreadedProducer"),
    ("async_nats", "Client"),
    ("lapin", "Channel"),
    ("redis", "Client"),
    ("redis", "ConnectionManager"),
    ("redis", "MultiplexedConnection"),
    ("rumqttc", "AsyncClient"),
];

/// Type names that many a domain uses as well: these count only where their crate is written.
const COMMON: [&str; 4] = ["Client", "Config", "Channel", "Agent"];

/// The clients in a type, also inside wrappers such as `State<…>` or `Arc<…>`, as written.
pub(crate) fn clients(ty: &Type) -> Vec<TokenStream> {
    let mut found = Find::default();
    found.visit_type_mut(&mut ty.clone());
    found.0
}

#[derive(Default)]
struct Find(Vec<TokenStream>);

impl VisitMut for Find {
    fn visit_type_path_mut(&mut self, ty: &mut TypePath) {
        let segments: Vec<_> = ty
            .path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        if is_client(&segments) {
            self.0.push(ty.path.to_token_stream());
        }
        visit_mut::visit_type_path_mut(self, ty);
    }
}

fn is_client(segments: &[String]) -> bool {
    let Some((name, modules)) = segments.split_last() else {
        return false;
    };
    CLIENTS
        .iter()
        .filter(|(_, client)| client == name)
        .any(|(family, client)| match modules.first() {
            Some(found) => family
                .strip_suffix('*')
                .map_or(found == family, |prefix| found.starts_with(prefix)),
            None => !COMMON.contains(client),
        })
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    #[test]
    fn a_client_is_found_inside_wrappers() {
        assert_eq!(clients(&parse_quote!(State<reqwest::Client>)).len(), 1);
        assert_eq!(clients(&parse_quote!(&Arc<aws_sdk_sqs::Client>)).len(), 1);
        assert_eq!(
            clients(&parse_quote!((
                FutureProducer,
                ::lettre::AsyncSmtpTransport<Tokio>
            )))
            .len(),
            2
        );
    }

    #[test]
    fn a_customer_called_client_is_none() {
        for ty in [
            parse_quote!(Client),
            parse_quote!(Json<crate::crm::Client>),
            parse_quote!(Config),
        ] {
            assert!(clients(&ty).is_empty());
        }
    }
}
