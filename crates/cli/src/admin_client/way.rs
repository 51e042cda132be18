//! How a running program's door is reached: by the socket in its data folder, or at an address that the operator gives.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::bail;
use restante_federation::BaseUrl;
use restante_operators::SOCKET_FILE;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// See the module.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Way {
    Socket(PathBuf),
    Address { host: String, port: u16 },
}

/// Either connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Way {
    /// To the program whose data is in `data`, or, if one is given, to `url`.
    pub(super) fn of(url: Option<&BaseUrl>, data: &Path) -> anyhow::Result<Self> {
        match url {
            None => Ok(Self::Socket(data.join(SOCKET_FILE))),
            Some(url) if url.tls => bail!("the door speaks plain HTTP; give --door http://…"),
            Some(url) => Ok(Self::Address { host: url.host.clone(), port: url.port }),
        }
    }

    pub(super) async fn connect(&self, program: &str) -> anyhow::Result<Box<dyn Stream>> {
        let connected: io::Result<Box<dyn Stream>> = match self {
            Self::Socket(path) => {
                UnixStream::connect(path).await.map(|stream| Box::new(stream) as _)
            }
            Self::Address { host, port } => {
                let host = host.trim_start_matches('[').trim_end_matches(']');
                TcpStream::connect((host, *port)).await.map(|stream| Box::new(stream) as _)
            }
        };
        connected.map_err(|error| self.explained(program, error))
    }

    /// The name of the socket's host counts for nothing.
    pub(super) fn host_header(&self) -> String {
        match self {
            Self::Socket(_) => "localhost".to_owned(),
            Self::Address { host, port } => format!("{host}:{port}"),
        }
    }

    fn explained(&self, program: &str, error: io::Error) -> anyhow::Error {
        let text = match (self, error.kind()) {
            (Self::Socket(_), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                format!(
                    "no {program} is running behind {self}; start it, or name its configuration with --config"
                )
            }
            (Self::Socket(_), io::ErrorKind::InvalidInput) => format!(
                "the path {self} is too long for a socket; say where the {program} listens for operators with --door http://ADDRESS:PORT"
            ),
            (Self::Socket(_), _) => {
                format!("cannot use {self}; run this as the user of the {program}, or as root")
            }
            (Self::Address { .. }, _) => {
                format!("no {program} is running behind {self}; start it, or correct --door")
            }
        };
        anyhow::Error::new(error).context(text)
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(f),
            Self::Address { host, port } => write!(f, "http://{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_whose_path_is_too_long_says_what_to_give_instead() {
        let folder = tempfile::tempdir().unwrap();
        let way = Way::of(None, &folder.path().join("x".repeat(120))).unwrap();
        let Err(error) = way.connect("relay").await else { panic!("connected") };
        assert!(error.to_string().contains("--door http://"), "{error}");
    }
}
