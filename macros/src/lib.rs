//! stub
use proc_macro::TokenStream;
#[proc_macro_attribute] pub fn idempotent(_: TokenStream, item: TokenStream) -> TokenStream { item }
#[proc_macro_attribute] pub fn outbox(_: TokenStream, item: TokenStream) -> TokenStream { item }
#[proc_macro_attribute] pub fn handlers(_: TokenStream, item: TokenStream) -> TokenStream { item }
#[proc_macro_derive(Event, attributes(event))] pub fn event(_: TokenStream) -> TokenStream { TokenStream::new() }
#[proc_macro_derive(KeyPart)] pub fn key_part(_: TokenStream) -> TokenStream { TokenStream::new() }
