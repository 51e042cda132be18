//! Measures what compression at rest saves and costs, on transactions as homeservers send them.
//!
//! `cargo run --release -p restante-mailbox --example compression`

use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

const ROUNDS: usize = 2000;
const LEVELS: [i32; 5] = [-5, -1, 1, 3, 6];

fn main() {
    let mut rng = StdRng::seed_from_u64(1);
    let samples = [
        ("1 encrypted PDU, 400 B text", transaction(&mut rng, 1, 400, 0)),
        ("1 encrypted PDU, 2.5 KB text", transaction(&mut rng, 1, 2500, 0)),
        ("10 encrypted PDUs", transaction(&mut rng, 10, 600, 0)),
        ("50 encrypted PDUs", transaction(&mut rng, 50, 600, 0)),
        ("1 to-device EDU", transaction(&mut rng, 0, 0, 1)),
        ("50 PDUs and 100 EDUs", transaction(&mut rng, 50, 600, 100)),
    ];
    for (name, mut body) in samples {
        body.push_str(&members(&mut rng));
        println!("{name}: {} B with proof, waybill and keys", body.len());
        for level in LEVELS {
            measure(body.as_bytes(), level);
        }
    }
}

fn measure(body: &[u8], level: i32) {
    let packed = zstd::bulk::compress(body, level).expect("compresses");
    let rounds = (ROUNDS * 4096 / body.len()).max(20);
    let micros = |start: Instant| start.elapsed().as_secs_f64() * 1e6 / rounds as f64;

    let start = Instant::now();
    for _ in 0..rounds {
        std::hint::black_box(zstd::bulk::compress(body, level).expect("compresses"));
    }
    let compress = micros(start);
    let start = Instant::now();
    for _ in 0..rounds {
        std::hint::black_box(zstd::bulk::decompress(&packed, body.len()).expect("decompresses"));
    }
    let decompress = micros(start);
    let share = 100 * packed.len() / body.len();
    println!(
        "  level {level:2}: {share:3} %  compress {compress:7.1} µs  decompress {decompress:6.1} µs"
    );
}

fn transaction(rng: &mut StdRng, pdus: usize, text_bytes: usize, edus: usize) -> String {
    let pdus: Vec<_> = (0..pdus).map(|depth| pdu(rng, depth, text_bytes)).collect();
    let edus: Vec<_> = (0..edus).map(|_| edu(rng)).collect();
    format!(
        r#"{{"edus":[{}],"origin":"matrix.example.org","origin_server_ts":1700000000000,"pdus":[{}]}}"#,
        edus.join(","),
        pdus.join(",")
    )
}

fn pdu(rng: &mut StdRng, depth: usize, text_bytes: usize) -> String {
    // A client pads nothing: lengths vary around the mean.
    let text_bytes = rng.random_range(text_bytes / 2..=text_bytes * 3 / 2);
    format!(
        r#"{{"auth_events":["${}","${}","${}"],"content":{{"algorithm":"m.megolm.v1.aes-sha2","ciphertext":"{}","device_id":"ABCDEFGHIJ","sender_key":"{}","session_id":"{}"}},"depth":{},"hashes":{{"sha256":"{}"}},"origin":"matrix.example.org","origin_server_ts":17000000{:05},"prev_events":["${}"],"room_id":"!AbCdEfGhIjKlMnOpQr:matrix.example.org","sender":"@someone:matrix.example.org","signatures":{{"matrix.example.org":{{"ed25519:a_RXGa":"{}"}}}},"type":"m.room.encrypted","unsigned":{{"age":{}}}}}"#,
        token(rng, 32),
        token(rng, 32),
        token(rng, 32),
        token(rng, text_bytes),
        token(rng, 32),
        token(rng, 32),
        1000 + depth,
        token(rng, 32),
        depth,
        token(rng, 32),
        token(rng, 64),
        depth
    )
}

fn edu(rng: &mut StdRng) -> String {
    format!(
        r#"{{"content":{{"message_id":"{}","messages":{{"@other:b.example":{{"KLMNOPQRST":{{"algorithm":"m.olm.v1.curve25519-aes-sha2","ciphertext":{{"{}":{{"body":"{}","type":0}}}},"org.matrix.msgid":"{}","sender_key":"{}"}}}}}},"sender":"@someone:matrix.example.org","type":"m.room.encrypted"}},"edu_type":"m.direct_to_device"}}"#,
        token(rng, 12),
        token(rng, 32),
        token(rng, 900),
        token(rng, 24),
        token(rng, 32)
    )
}

fn members(rng: &mut StdRng) -> String {
    let signature = |rng: &mut StdRng| token(rng, 64);
    format!(
        r#"{{"org.restante.proof":{{"uri":"/_matrix/federation/v1/send/1700000000000","authorization":"X-Matrix origin=\"matrix.example.org\",key=\"ed25519:a_RXGa\",sig=\"{}\",destination=\"b.example\""}},"org.restante.waybill":{{"origin":"matrix.example.org","destination":"b.example","stream":"{}","seq":42,"content_sha256":"{}","capsule_sha256":null,"deposited_at":1700000000500,"signatures":{{"matrix.example.org":{{"ed25519:a_RXGa":"{}"}}}}}},"org.restante.keys":{{"old_verify_keys":{{}},"server_name":"matrix.example.org","signatures":{{"matrix.example.org":{{"ed25519:a_RXGa":"{}"}}}},"valid_until_ts":1702592000000,"verify_keys":{{"ed25519:a_RXGa":{{"key":"{}"}}}}}}}}"#,
        signature(rng),
        token(rng, 16),
        token(rng, 32),
        signature(rng),
        signature(rng),
        token(rng, 32)
    )
}

fn token(rng: &mut StdRng, bytes: usize) -> String {
    let mut random = vec![0; bytes];
    rng.fill_bytes(&mut random);
    STANDARD_NO_PAD.encode(random)
}
