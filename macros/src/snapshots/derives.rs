impl<T> ::effectively::__private::Event for OrderPlaced<T> {
    const TOPIC: &'static str = "orders";
    const NAME: &'static str = "order.placed.v1";
    fn partition_key(
        &self,
    ) -> ::core::option::Option<::effectively::__private::Cow<'_, str>> {
        ::effectively::__private::partition_key(
            &[&(self.tenant), &"/", &(self.order_id())],
        )
    }
}
impl<T> ::effectively::__private::KeyPart for Id<T>
where
    T: ::effectively::__private::KeyPart,
{
    fn key_part(&self) -> ::effectively::__private::Cow<'_, str> {
        ::effectively::__private::KeyPart::key_part(&self.0)
    }
}
