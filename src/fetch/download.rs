//! From a URL to a file, hashed on its way.

use std::{
    fmt,
    fs::File,
    io::{self, Read, Seek, Write},
    net::IpAddr,
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};
use ureq::{
    Agent, Error,
    http::{StatusCode, Uri},
    tls::{RootCerts, TlsConfig},
    unversioned::transport::DefaultConnector,
};

use super::guard::{Guard, check};

/// Redirects that are followed.
const MAX_REDIRECTS: u32 = 5;
/// Tries in all, and the pause before the second, which doubles from then on.
const TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// So long may a name, a connection, the head of an answer and each piece of its body take.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(20);

/// Where an archive is. Shown without what could be a secret: user, password and query.
#[derive(Clone, Debug)]
pub struct Address(Box<Uri>);

/// It is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not an absolute http or https URL.
    #[error("it is no absolute http or https URL")]
    NotHttp,
    /// Credentials.
    #[error(
        "it holds a user or password, which everybody who may read the object would see; give a presigned URL, or use spec.source.image"
    )]
    Credentials,
}

/// The SHA-256 of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sha256Sum([u8; 32]);

/// It is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it has not 64 hexadecimal digits; `sha256sum FILE` prints it")]
pub struct Sha256Error;

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The server's no.
    #[error("{address} was answered {status}")]
    Status {
        /// What was asked for.
        address: Address,
        /// The answer.
        status: StatusCode,
    },
    /// A certificate and the like, an address that is refused, a redirect that leads nowhere.
    #[error("{address} can not be fetched: {why}")]
    Refused {
        /// What was asked for.
        address: Address,
        /// Why.
        why: String,
    },
    /// It may work another time.
    #[error("{address} could not be fetched, tried {tries} times: {why}")]
    Unreachable {
        /// What was asked for.
        address: Address,
        /// How often.
        tries: u32,
        /// What happened last.
        why: String,
    },
    /// Too many bytes.
    #[error("{address} has more than {limit} bytes, the most that is downloaded")]
    TooLarge {
        /// What was asked for.
        address: Address,
        /// The most.
        limit: u64,
    },
    /// Other bytes than expected.
    #[error(
        "{address} has the SHA-256 {found}, not {expected} as spec.source.archive.sha256 says; correct it, or publish the archive that was meant"
    )]
    Checksum {
        /// What was asked for.
        address: Address,
        /// What it has.
        found: Sha256Sum,
        /// What it should have.
        expected: Sha256Sum,
    },
    /// The disk.
    #[error("the archive could not be written: {0}")]
    Write(io::Error),
}

/// How one try ended.
enum Failed {
    Final(DownloadError),
    /// What happened; it may pass.
    Passing(String),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Final(DownloadError::Write(error))
    }
}

/// Fetches `address` into `file`, which is empty; how many bytes that is.
pub fn download(
    address: &Address,
    expected: Sha256Sum,
    file: &mut File,
    limit: u64,
    time: Duration,
) -> Result<u64, DownloadError> {
    let deadline = Instant::now() + time;
    let (mut pause, mut tries) = (FIRST_PAUSE, 0);
    loop {
        tries += 1;
        let why = match attempt(address, file, limit, deadline) {
            Ok((_, found)) if found != expected => {
                return Err(DownloadError::Checksum {
                    address: address.clone(),
                    found,
                    expected,
                });
            }
            Ok((bytes, _)) => return Ok(bytes),
            Err(Failed::Final(error)) => return Err(error),
            Err(Failed::Passing(why)) => why,
        };
        if tries == TRIES || Instant::now() + pause >= deadline {
            return Err(DownloadError::Unreachable {
                address: address.clone(),
                tries,
                why,
            });
        }
        tracing::warn!(url = %address, why, "The archive could not be fetched; another try follows.");
        thread::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0));
        pause *= 2;
    }
}

fn attempt(
    address: &Address,
    file: &mut File,
    limit: u64,
    deadline: Instant,
) -> Result<(u64, Sha256Sum), Failed> {
    file.set_len(0)?;
    file.rewind()?;
    let left = deadline.saturating_duration_since(Instant::now());
    let response = agent(left)
        .get(&*address.0)
        .call()
        .map_err(|error| failed(address, error))?;
    let status = response.status();
    if !status.is_success() {
        return Err(answered(address, status));
    }
    let too_large = || {
        Failed::Final(DownloadError::TooLarge {
            address: address.clone(),
            limit,
        })
    };
    if response
        .body()
        .content_length()
        .is_some_and(|length| length > limit)
    {
        return Err(too_large());
    }
    let mut body = response.into_body().into_reader();
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                return Err(Failed::Passing(format!(
                    "it broke off after {bytes} bytes: {error}"
                )));
            }
        };
        bytes += read as u64;
        if bytes > limit {
            return Err(too_large());
        }
        let chunk = buffer.get(..read).unwrap_or_default();
        hash.update(chunk);
        file.write_all(chunk)?;
    }
    Ok((bytes, Sha256Sum(hash.finalize().into())))
}

/// A client that asks nobody else first: proxies as the environment says, no cookies, nothing remembered.
fn agent(left: Duration) -> Agent {
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::PlatformVerifier)
        .build();
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(MAX_REDIRECTS)
        .max_redirects_will_error(true)
        .tls_config(tls)
        .user_agent(concat!("scriptscope/", env!("CARGO_PKG_VERSION")))
        .accept_encoding("identity")
        .timeout_global(Some(left))
        .timeout_resolve(Some(CONNECT))
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(ANSWER))
        .timeout_per_read(Some(ANSWER))
        .build();
    Agent::with_parts(config, DefaultConnector::default(), Guard::default())
}

fn answered(address: &Address, status: StatusCode) -> Failed {
    if status.is_server_error()
        || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status)
    {
        return Failed::Passing(format!("it was answered {status}"));
    }
    Failed::Final(DownloadError::Status {
        address: address.clone(),
        status,
    })
}

/// What may pass is tried again. Texts of the library that could hold a URL are not shown.
fn failed(address: &Address, error: Error) -> Failed {
    let why = match error {
        Error::StatusCode(code) => {
            return answered(
                address,
                StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            );
        }
        Error::HostNotFound => return Failed::Passing(format!("there is no host {:?}", address.host())),
        Error::Io(error)
            if error
                .get_ref()
                .is_some_and(|inner| inner.to_string().contains("certificate")) =>
        {
            error.to_string()
        }
        Error::Io(error) => return Failed::Passing(error.to_string()),
        Error::Timeout(_) => return Failed::Passing("there was no answer in time".to_owned()),
        Error::ConnectionFailed => return Failed::Passing("nobody could be connected to".to_owned()),
        Error::TooManyRedirects => format!("it is redirected more than {MAX_REDIRECTS} times"),
        Error::RedirectFailed | Error::BadUri(_) | Error::Http(_) => {
            "it is redirected to something that is no http or https URL".to_owned()
        }
        error => error.to_string().trim_start_matches("other: ").to_owned(),
    };
    Failed::Final(DownloadError::Refused {
        address: address.clone(),
        why,
    })
}

impl Address {
    fn host(&self) -> &str {
        self.0.host().unwrap_or_default()
    }

    /// Whether it names an address that no archive may come from. Names are looked at when they are resolved.
    pub fn check(&self) -> Result<(), DownloadError> {
        let host = self.host().trim_matches(['[', ']']);
        match host.parse::<IpAddr>().map(check) {
            Ok(Err(refused)) => Err(DownloadError::Refused {
                address: self.clone(),
                why: refused.to_string(),
            }),
            _ => Ok(()),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: Uri = text.parse().map_err(|_| AddressError::NotHttp)?;
        let authority = uri.authority().ok_or(AddressError::NotHttp)?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || authority.host().is_empty() {
            return Err(AddressError::NotHttp);
        }
        if authority.as_str().contains('@') {
            return Err(AddressError::Credentials);
        }
        Ok(Self(Box::new(uri)))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.0.scheme_str().unwrap_or_default();
        let authority = self.0.authority().map_or("", |authority| authority.as_str());
        write!(f, "{scheme}://{authority}{}", self.0.path())
    }
}

impl FromStr for Sha256Sum {
    type Err = Sha256Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut sum = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(Sha256Error);
        }
        for (byte, digits) in sum.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| Sha256Error)?;
            // `from_str_radix` takes a sign.
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(Sha256Error);
            }
            *byte = u8::from_str_radix(digits, 16).map_err(|_| Sha256Error)?;
        }
        Ok(Self(sum))
    }
}

impl fmt::Display for Sha256Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_a_secret_is_refused_or_not_shown() {
        let address: Address = "https://files.test:8443/a/b.zip?X-Amz-Signature=secret"
            .parse()
            .unwrap();
        assert_eq!(address.to_string(), "https://files.test:8443/a/b.zip");
        let with_user = "https://user:secret@files.test/b.zip".parse::<Address>();
        assert_eq!(with_user.unwrap_err(), AddressError::Credentials);
        for text in [
            "ftp://a/b.zip",
            "file:///etc/passwd",
            "/b.zip",
            "b.zip",
            "http://",
            "http:///b",
            "",
        ] {
            assert_eq!(
                text.parse::<Address>().unwrap_err(),
                AddressError::NotHttp,
                "{text}"
            );
        }
    }

    #[test]
    fn a_sum_is_64_digits() {
        let text = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(text.parse::<Sha256Sum>().unwrap().to_string(), text);
        assert_eq!(text.to_uppercase().parse(), text.parse::<Sha256Sum>());
        for wrong in ["", &text[1..], &text.replace('e', "g"), &text.replace("e3", "+3")] {
            assert_eq!(wrong.parse::<Sha256Sum>(), Err(Sha256Error), "{wrong}");
        }
    }
}
