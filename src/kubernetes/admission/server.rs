//! HTTPS for the API server. Handshakes run beside each other, so that a slow one holds up nobody.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rustls::ServerConfig;
use rustls::server::ResolvesServerCert;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

/// The API server gives the whole call five seconds.
const HANDSHAKE_MAX: Duration = Duration::from_secs(4);
/// Handshakes that are done and wait to be served.
const BACKLOG: usize = 64;

type Connection = (TlsStream<TcpStream>, SocketAddr);

/// Listens; serving goes on in the background until it is told to stop.
pub async fn serve(address: SocketAddr, routes: Router, certificate: Arc<dyn ResolvesServerCert>, stop: CancellationToken) -> io::Result<SocketAddr> {
    let mut config = ServerConfig::builder().with_no_client_auth().with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    let (sender, receiver) = mpsc::channel(BACKLOG);
    tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), sender));
    let served = axum::serve(Handshaken { receiver, bound }, routes).with_graceful_shutdown(async move { stop.cancelled().await });
    tokio::spawn(async move {
        if let Err(error) = served.await {
            tracing::error!(%error, "the webhook's server stopped");
        }
    });
    Ok(bound)
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, sender: mpsc::Sender<Connection>) {
    while !sender.is_closed() {
        let Ok((stream, peer)) = listener.accept().await else {
            // Out of file descriptors, mostly: that passes.
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        };
        let (acceptor, sender) = (acceptor.clone(), sender.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
                Ok(Ok(connection)) => drop(sender.send((connection, peer)).await),
                Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
            }
        });
    }
}

/// Connections whose handshake is done.
struct Handshaken {
    receiver: mpsc::Receiver<Connection>,
    bound: SocketAddr,
}

impl axum::serve::Listener for Handshaken {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> Connection {
        match self.receiver.recv().await {
            Some(connection) => connection,
            // The accepting task lives as long as this receiver.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.bound)
    }
}
