//! The one HTTP request an agent makes: a POST with a small answer.
//!
//! Invariant: bounded in bytes and time, whatever answers; everything but an HTTP/1 answer is an error.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::transport::Stream;

/// Head and body of an answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// Posts JSON; `headers` are whole lines without their ends.
pub(crate) async fn post(
    stream: &mut Box<dyn Stream>,
    host: &str,
    path: &str,
    headers: &[String],
    body: &str,
) -> io::Result<Answer> {
    let mut head = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
        body.len()
    );
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    head.push_str(body);
    let exchange = async {
        stream.write_all(head.as_bytes()).await?;
        stream.flush().await?;
        let mut bytes = Vec::new();
        let mut buffer = vec![0; 4096];
        loop {
            let read = match stream.read(&mut buffer).await {
                Ok(read) => read,
                // Servers close without a TLS goodbye; what came is judged by its length.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
                Err(error) => return Err(error),
            };
            bytes.extend_from_slice(buffer.get(..read).unwrap_or_default());
            if let Some(answer) = parse(&bytes, read == 0)? {
                return Ok(answer);
            }
            if bytes.len() > ANSWER_BYTES_MAX {
                return Err(io::Error::other("the answer is too long; is this a weft relay?"));
            }
        }
    };
    let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer within 15 s");
    tokio::time::timeout(ANSWER_MAX, exchange).await.map_err(|_| late())?
}

/// `None`: not whole yet.
fn parse(bytes: &[u8], ended: bool) -> io::Result<Option<Answer>> {
    let not_http = || io::Error::other("the answer is not HTTP; is this a weft relay?");
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if ended { Err(not_http()) } else { Ok(None) };
    };
    let head = std::str::from_utf8(bytes.get(..end).unwrap_or_default()).map_err(|_| not_http())?;
    let body = bytes.get(end + 4..).unwrap_or_default();
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .filter(|line| line.starts_with("HTTP/1."))
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|code| code.parse().ok())
        .ok_or_else(not_http)?;
    let (mut length, mut chunked) = (None, false);
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse::<usize>().ok(),
            "transfer-encoding" => chunked = value.to_ascii_lowercase().contains("chunked"),
            _ => {}
        }
    }
    let whole = if chunked {
        unchunk(body)
    } else {
        match length {
            Some(length) => body.get(..length).map(<[u8]>::to_vec),
            None => ended.then(|| body.to_vec()),
        }
    };
    match whole {
        Some(body) => Ok(Some(Answer { status, body })),
        None if ended => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer was cut off")),
        None => Ok(None),
    }
}

/// The body of a chunked answer; `None` if its end is not there yet.
fn unchunk(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(bytes.get(..end)?).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok().filter(|size| *size <= ANSWER_BYTES_MAX)?;
        bytes = bytes.get(end + 2..)?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(bytes.get(..size)?);
        bytes = bytes.get(size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers by length, by chunks and by end are understood, however they are cut; anything else is refused.
    #[test]
    fn answers_are_parsed_however_they_arrive() {
        let by_length = b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\n{}";
        let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n1;x=y\r\n}\r\n0\r\n\r\n";
        for (bytes, status) in [(&by_length[..], 401), (&chunked[..], 200)] {
            let whole = (0..=bytes.len()).find_map(|cut| parse(&bytes[..cut], false).unwrap()).unwrap();
            assert_eq!(whole, Answer { status, body: b"{}".to_vec() });
        }
        assert_eq!(parse(b"HTTP/1.0 200 OK\r\n\r\nall", true).unwrap().unwrap().body, b"all");
        assert!(parse(b"SSH-2.0-OpenSSH\r\n\r\n", false).is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", true).is_err());
    }
}
