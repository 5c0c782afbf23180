//! One HTTP/1.1 request on a fresh connection: to a relay, or to the server of an account.
//!
//! Invariant: bounded in bytes and time, whatever answers; redirects are answers like others, never followed.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio_util::task::AbortOnDropHandle;

use super::transport::Stream;

/// Body of an answer.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Head of an answer.
const HEAD_BYTES_MAX: usize = 32 * 1024;
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// Sends a request whose URI is a path; `host` is what was dialled.
pub(crate) async fn send(
    stream: Box<dyn Stream>,
    host: &str,
    mut request: Request<Vec<u8>>,
) -> io::Result<Response<Bytes>> {
    let bad = |_| io::Error::other("the host's name cannot stand in a request");
    request.headers_mut().insert(header::HOST, HeaderValue::from_str(host).map_err(bad)?);
    request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    request
        .headers_mut()
        .insert(header::USER_AGENT, HeaderValue::from_static(concat!("weft/", env!("CARGO_PKG_VERSION"))));
    let exchange = async {
        let (mut sender, connection) =
            http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(stream)).await.map_err(plain)?;
        let _running = AbortOnDropHandle::new(tokio::spawn(connection));
        let response = sender.send_request(request.map(|body| Full::new(Bytes::from(body)))).await.map_err(plain)?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| io::Error::other(format!("the answer is too long or broke off: {error}")))?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    };
    let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer within 15 s");
    tokio::time::timeout(ANSWER_MAX, exchange).await.map_err(|_| late())?
}

fn plain(error: hyper::Error) -> io::Error {
    if error.is_parse() {
        return io::Error::other("the answer is not HTTP");
    }
    io::Error::other(format!("no answer: {error}"))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// What comes of an answer that arrives in these pieces.
    async fn answered(pieces: &[&[u8]]) -> io::Result<Response<Bytes>> {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        tokio::spawn(async move {
            let mut asked = [0; 1024];
            let _read = far.read(&mut asked).await;
            for piece in pieces {
                if far.write_all(&piece).await.is_err() || far.flush().await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        });
        let request = Request::post("/v1/token").body(b"{}".to_vec()).unwrap();
        send(Box::new(near), "relay.example:443", request).await
    }

    /// Answers by length, by chunks and by end are understood, however they are cut; what is cut off, endless or not HTTP is
    /// an error.
    #[tokio::test]
    async fn answers_are_understood_however_they_arrive() {
        let by_length: [&[u8]; 3] = [b"HTTP/1.1 401 No\r\nConte", b"nt-Length: 2\r\n\r", b"\n{}"];
        let chunked: [&[u8]; 2] =
            [b"HTTP/1.1 401 No\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n1;x", b"=y\r\n}\r\n0\r\n\r\n"];
        let by_end: [&[u8]; 1] = [b"HTTP/1.0 401 No\r\n\r\n{}"];
        for pieces in [&by_length[..], &chunked[..], &by_end[..]] {
            let answer = answered(pieces).await.unwrap();
            assert_eq!((answer.status().as_u16(), answer.body().as_ref()), (401, &b"{}"[..]));
        }
        assert!(answered(&[b"SSH-2.0-OpenSSH\r\n\r\n"]).await.is_err());
        assert!(answered(&[b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"]).await.is_err());
        let long = vec![b'a'; ANSWER_BYTES_MAX + 1];
        assert!(answered(&[b"HTTP/1.0 200 OK\r\n\r\n", &long]).await.is_err());
    }
}
