//! [`Dns`]: the nodes behind a name, as Pingora's service discovery.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use async_trait::async_trait;
use hickory_resolver::TokioResolver;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::RData;
use pingora::lb::Backend;
use pingora::lb::discovery::ServiceDiscovery;
use pingora::protocols::l4::socket::SocketAddr as Address;
use pingora::{Error, ErrorType};

use super::{Each, Host};

/// One server behind a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Instance {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share, as SRV records tell it; at least 1.
    pub weight: Option<u32>,
    /// Lower ones come first; 0 for an address.
    pub priority: u32,
}

impl Instance {
    /// What a backend of [`Dns`] stands for.
    pub fn of(backend: &Backend) -> Option<Self> {
        backend.ext.get::<Self>().cloned()
    }

    /// As Pingora has it.
    pub fn backend(self) -> Backend {
        let weight = self.weight.unwrap_or(1) as usize;
        let mut backend = Backend { addr: Address::Inet(self.address), weight, ext: http::Extensions::new() };
        backend.ext.insert(self);
        backend
    }
}

/// Looks a name up whenever it is asked.
pub struct Dns {
    resolver: TokioResolver,
    name: String,
    port: u16,
    each: Each,
}

impl Dns {
    /// Looks up what is behind `host`, with the system's name servers.
    pub fn new(host: &Host, each: Each) -> Result<Self, NetError> {
        Ok(Self::with(TokioResolver::builder_tokio()?.build()?, host, each))
    }

    fn with(resolver: TokioResolver, host: &Host, each: Each) -> Self {
        Self { resolver, name: host.name.clone(), port: host.port, each }
    }

    async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, NetError> {
        Ok(self.resolver.lookup_ip(name).await?.iter().collect())
    }

    async fn instances(&self) -> Result<Vec<Instance>, NetError> {
        if self.each == Each::Address {
            let addresses = self.addresses(&self.name).await?.into_iter();
            let instance = |address| Instance {
                address: SocketAddr::new(address, self.port),
                weight: None,
                priority: 0,
            };
            return Ok(addresses.map(instance).collect());
        }
        let mut instances = Vec::new();
        for record in self.resolver.srv_lookup(self.name.as_str()).await?.answers() {
            let RData::SRV(service) = &record.data else { continue };
            for address in self.addresses(&service.target.to_utf8()).await? {
                instances.push(Instance {
                    address: SocketAddr::new(address, service.port),
                    weight: Some(u32::from(service.weight).max(1)),
                    priority: u32::from(service.priority),
                });
            }
        }
        Ok(instances)
    }
}

#[async_trait]
impl ServiceDiscovery for Dns {
    async fn discover(&self) -> pingora::Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        let instances = self.instances().await;
        let instances = instances
            .map_err(|error| Error::explain(ErrorType::Custom("DNS"), format!("{}: {error}", self.name)))?;
        Ok((instances.into_iter().map(Instance::backend).collect(), HashMap::new()))
    }
}

#[cfg(test)]
mod tests {
    use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
    use hickory_resolver::net::runtime::TokioRuntimeProvider;
    use tokio::net::UdpSocket;

    use super::*;
    use crate::node::Endpoint;

    /// A name server that knows `box.test` (two addresses), and `_llm._tcp.test` (one service at `box.test`, port 9000).
    async fn name_server() -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut query = [0; 512];
            loop {
                let (length, peer) = socket.recv_from(&mut query).await.unwrap();
                socket.send_to(&answer(&query[..length]), peer).await.unwrap();
            }
        });
        address
    }

    /// The answer to a query (RFC 1035, section 4), without whatever stands behind the question.
    fn answer(query: &[u8]) -> Vec<u8> {
        let end = 12 + query[12..].iter().position(|&byte| byte == 0).unwrap() + 1;
        let kind = u16::from_be_bytes([query[end], query[end + 1]]);
        let is_box = query[12..end].starts_with(b"\x03box");
        let target = b"\x03box\x04test\x00";
        let data: Vec<Vec<u8>> = match (is_box, kind) {
            (true, 1) => vec![vec![127, 0, 0, 1], vec![127, 0, 0, 2]],
            // Priority 3, weight 0, port 9000.
            (false, 33) => vec![[&[0, 3, 0, 0, 0x23, 0x28][..], target].concat()],
            _ => Vec::new(),
        };
        let mut answer = query[..2].to_vec();
        answer.extend([0x81, 0x80, 0, 1, 0, data.len() as u8, 0, 0, 0, 0]);
        answer.extend(&query[12..end + 4]);
        for data in data {
            // The name is the question's; class IN; a minute to live.
            answer.extend([0xc0, 12]);
            answer.extend(kind.to_be_bytes());
            answer.extend([0, 1, 0, 0, 0, 60]);
            answer.extend((data.len() as u16).to_be_bytes());
            answer.extend(data);
        }
        answer
    }

    async fn found(url: &str) -> Vec<Instance> {
        let server = name_server().await;
        let mut connection = ConnectionConfig::udp();
        connection.port = server.port();
        let mut name_server = NameServerConfig::udp(server.ip());
        name_server.connections = vec![connection];
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![name_server]);
        let resolver =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).build().unwrap();
        let Ok(Endpoint::Tcp(host)) = Endpoint::parse(url) else { panic!("{url}") };
        let dns = Dns::with(resolver, &host, host.each.unwrap());
        dns.discover().await.unwrap().0.iter().filter_map(Instance::of).collect()
    }

    #[tokio::test]
    async fn each_address_of_a_name_is_an_instance() {
        let instance = |last| Instance { address: ([127, 0, 0, last], 81).into(), weight: None, priority: 0 };
        assert_eq!(found("dns+http://box.test:81").await, [instance(1), instance(2)]);
    }

    #[tokio::test]
    async fn each_service_of_a_name_is_an_instance_with_a_port_of_its_own() {
        let instance =
            |last| Instance { address: ([127, 0, 0, last], 9000).into(), weight: Some(1), priority: 3 };
        assert_eq!(found("dns+http://_llm._tcp.test").await, [instance(1), instance(2)]);
    }
}
