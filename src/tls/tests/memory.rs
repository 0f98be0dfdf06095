//! What a connection holds, in its handshake and when it rests.

use allocation_counter::measure;

use super::*;

/// A client that has begun its handshake and then stops, the server's whole flight waiting to be sent.
fn begun(server: &Arc<ServerConfig>, client: &ClientConfig) -> ServerConnection {
    let name = ServerName::try_from("a.example").unwrap();
    let mut client = ClientConnection::new(Arc::new(client.clone()), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    let mut server = ServerConnection::new(server.clone()).unwrap();
    server.read_tls(&mut &hello[..]).unwrap();
    server.process_new_packets().unwrap();
    server
}

#[test]
fn connections_hold_little() {
    let shop = Workshop::new();
    shop.mint("a", &["a.example"]);
    let server = default_of(&shop.load(&site(&["a"], ""), None).unwrap());
    let client = shop.client();
    // What is made once is made now.
    Pair::new(&server, &client, "a.example").unwrap();

    let mut stalled = None;
    let begun = measure(|| stalled = Some(begun(&server, &client)));
    // Its client's end has gone when the count is taken.
    let in_handshake = begun.bytes_current as usize + size_of::<ServerConnection>();

    let mut pairs = Vec::with_capacity(1);
    let mut rested = None;
    let over = measure(|| {
        pairs.push(Pair::new(&server, &client, "a.example").unwrap());
        let Pair { server, client } = pairs.pop().unwrap();
        drop(client);
        rested = Some(server);
    });
    let at_rest = over.bytes_current as usize + size_of::<ServerConnection>();
    println!("in handshake {in_handshake} (peak {}), at rest {at_rest}", begun.bytes_max);
    assert!(in_handshake < 12 * 1024, "{in_handshake}");
    assert!(at_rest < 12 * 1024, "{at_rest}");
}
