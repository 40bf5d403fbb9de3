use effectively::KeyPart;

#[derive(KeyPart)]
enum Kind {
    Card,
    Cash,
}

fn main() {}
