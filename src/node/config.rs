//! The `nodes` section.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::protocol::ProtocolName;
use super::{Access, Endpoint, Standing, Timeouts, Tls, TlsFault};
use crate::routing::{Location, Site, Zone};
use crate::units::{Secret, range};

/// One entry of `nodes`: a server this Arriero does not own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Unique among nodes and models.
    pub name: String,
    /// Where it listens: see [`Endpoint::parse`].
    pub url: String,
    /// How to talk to it.
    #[serde(default)]
    pub protocol: ProtocolName,
    /// The models it serves; empty: those that it says it has.
    #[serde(default)]
    pub models: Served,
    /// Exchanges at once; 1 to a million.
    #[serde(default = "four")]
    pub max_in_flight: usize,
    /// Its share, relative to those of others; 1 to 1000.
    #[serde(default = "one")]
    pub weight: u32,
    /// Where it is, by name.
    #[serde(default)]
    pub zone: String,
    /// Where it is: latitude and longitude in degrees.
    #[serde(default)]
    pub location: Option<(f64, f64)>,
    /// Lower ones come first.
    #[serde(default)]
    pub tier: u32,
    /// What it costs, relative to others.
    #[serde(default)]
    pub cost: f64,
    /// Sent as a bearer token.
    #[serde(default)]
    pub api_key: Option<Secret>,
    /// For `https`.
    #[serde(default)]
    pub tls: Option<NodeTls>,
    /// How long to wait for it.
    #[serde(default)]
    pub timeouts: NodeTimeouts,
    /// Whether it goes on with an assistant's turn that it is given.
    #[serde(default)]
    pub prefill: bool,
    /// How often it is asked for its models.
    #[serde(default = "half_a_minute", with = "crate::units::duration")]
    pub refresh: Duration,
}

fn four() -> usize {
    4
}

fn one() -> u32 {
    1
}

fn half_a_minute() -> Duration {
    Duration::from_secs(30)
}

/// The `tls` of a node: PEM files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeTls {
    /// Whom to trust, in place of the system's certificates.
    pub ca: Option<PathBuf>,
    /// This side's certificate, those between it and its CA behind it.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// The name in the node's certificate, where it is not the URL's.
    pub server_name: Option<String>,
    /// Verify the node's certificate.
    pub verify: bool,
}

impl Default for NodeTls {
    fn default() -> Self {
        Self { ca: None, cert: None, key: None, server_name: None, verify: true }
    }
}

/// The `timeouts` of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeTimeouts {
    /// For a connection, TLS included.
    #[serde(with = "crate::units::duration")]
    pub connect: Duration,
    /// From the request to the first byte of the answer, which may take a load of the model.
    #[serde(with = "crate::units::duration")]
    pub first_byte: Duration,
    /// From one piece of the answer to the next.
    #[serde(with = "crate::units::duration")]
    pub idle: Duration,
}

impl Default for NodeTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(300),
            idle: Duration::from_secs(60),
        }
    }
}

impl NodeConfig {
    /// What is wrong, with the key it is wrong with; a dot parts the keys of a section from its own.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = self.range_faults();
        match Endpoint::parse(&self.url) {
            Err(error) => faults.push(("url", error.to_string())),
            Ok(Endpoint::Tcp(host)) if host.tls => {}
            Ok(_) if self.tls.is_some() => {
                faults.push(("tls", "is for https, and the url is not".to_owned()))
            }
            Ok(_) => {}
        }
        if self.models.0.is_empty() && self.protocol.protocol().ask_offers().is_none() {
            let message = "must name at least one model, for a worker does not say which it has";
            faults.push(("models", message.to_owned()));
        }
        if self.api_key.as_ref().is_some_and(|key| !key.can_be_sent()) {
            faults.push(("api_key", "must be visible ASCII characters".to_owned()));
        }
        if let Some(TlsFault { key, message }) = self.tls.as_ref().and_then(|tls| Tls::load(tls).err()) {
            faults.push((key, message));
        }
        faults
    }

    fn range_faults(&self) -> Vec<(&'static str, String)> {
        let numbers = [
            ("max_in_flight", self.max_in_flight as u64, 1..=1_000_000),
            ("weight", u64::from(self.weight), 1..=1000),
            ("tier", u64::from(self.tier), 0..=255),
        ];
        let numbers = numbers.into_iter();
        let mut faults: Vec<_> =
            numbers.filter_map(|(key, value, range)| Some((key, range::fault(value, range)?))).collect();
        if !self.cost.is_finite() || self.cost < 0.0 {
            faults.push(("cost", "must be a number from 0 on".to_owned()));
        }
        let is_on_earth =
            |(latitude, longitude): (f64, f64)| latitude.abs() <= 90.0 && longitude.abs() <= 180.0;
        if self.location.is_some_and(|location| !is_on_earth(location)) {
            faults.push(("location", "must be a latitude and a longitude in degrees".to_owned()));
        }
        let times = [
            ("timeouts.connect", self.timeouts.connect),
            ("timeouts.first_byte", self.timeouts.first_byte),
            ("timeouts.idle", self.timeouts.idle),
            ("refresh", self.refresh),
        ];
        let zero = times.into_iter().filter(|(_, time)| time.is_zero());
        faults.extend(zero.map(|(key, _)| (key, "must be more than 0".to_owned())));
        faults
    }

    pub(super) fn access(&self) -> Result<Access, TlsFault> {
        Ok(Access {
            api_key: self.api_key.clone(),
            tls: self.tls.as_ref().map(Tls::load).transpose()?.map(Arc::new),
            timeouts: Timeouts {
                connect: self.timeouts.connect,
                first_byte: Some(self.timeouts.first_byte),
                idle: Some(self.timeouts.idle),
            },
            prefill: self.prefill,
        })
    }

    pub(super) fn standing(&self) -> Standing {
        let location = self
            .location
            .map(|(latitude, longitude)| Location::try_from([latitude as f32, longitude as f32]));
        Standing {
            weight: self.weight as f32,
            site: Site {
                zone: Some(self.zone.as_str()).filter(|zone| !zone.is_empty()).map(Zone::of),
                location: location.and_then(Result::ok),
            },
            tier: u8::try_from(self.tier).unwrap_or(u8::MAX),
            cost: Some(self.cost as f32).filter(|cost| *cost > 0.0),
        }
    }
}

/// The models that a node serves, by our name for each: a list, or a map with the node's own names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Served(pub Vec<Model>);

/// One model of [`Served`].
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// What clients call it.
    pub name: String,
    /// What the node calls it.
    pub theirs: String,
}

impl<'de> Deserialize<'de> for Served {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Served;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of models, or a mapping of names to the node's own")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Served, A::Error> {
                let mut models = Vec::new();
                while let Some(name) = list.next_element::<String>()? {
                    models.push(Model { theirs: name.clone(), name });
                }
                Ok(Served(models))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Served, A::Error> {
                let mut models = Vec::new();
                while let Some((name, theirs)) = map.next_entry()? {
                    models.push(Model { name, theirs });
                }
                Ok(Served(models))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl Serialize for Served {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.iter().all(|model| model.name == model.theirs) {
            return serializer.collect_seq(self.0.iter().map(|model| &model.name));
        }
        serializer.collect_map(self.0.iter().map(|model| (&model.name, &model.theirs)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn faults(more: Value) -> Vec<(&'static str, String)> {
        let mut config = json!({"name": "a", "url": "https://a", "protocol": "openai"});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value::<NodeConfig>(config).unwrap().faults()
    }

    #[test]
    fn models_are_a_list_or_a_map() {
        let served = |value: Value| serde_json::from_value::<Served>(value);
        let both = |value: Value| serde_json::to_value(served(value).unwrap()).unwrap();
        assert_eq!(both(json!(["a", "b"])), json!(["a", "b"]));
        assert_eq!(both(json!({"a": "x"})), json!({"a": "x"}));
        assert_eq!(served(json!({"a": "x"})).unwrap().0[0], Model { name: "a".into(), theirs: "x".into() });
        assert!(served(json!("a")).is_err());
    }

    #[test]
    fn every_fault_names_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("no.pem");
        std::fs::write(&file, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        for (more, key) in [
            (json!({"url": "ftp://a"}), "url"),
            (json!({"url": "http://a", "tls": {}}), "tls"),
            (json!({"protocol": "worker"}), "models"),
            (json!({"weight": 0}), "weight"),
            (json!({"cost": -1}), "cost"),
            (json!({"location": [91, 0]}), "location"),
            (json!({"api_key": "a\r\nb"}), "api_key"),
            (json!({"timeouts": {"idle": "0s"}}), "timeouts.idle"),
            (json!({"tls": {"ca": "/nowhere"}}), "tls.ca"),
            (json!({"tls": {"ca": file}}), "tls.ca"),
            (json!({"tls": {"cert": file}}), "tls.key"),
            (json!({"tls": {"cert": file, "key": file}}), "tls.cert"),
        ] {
            let keys: Vec<_> = faults(more.clone()).into_iter().map(|(key, _)| key).collect();
            assert_eq!(keys, [key], "{more}");
        }
        assert_eq!(faults(json!({})), []);
    }

    #[test]
    fn a_key_is_never_shown() {
        let config = json!({"name": "a", "url": "https://a", "api_key": "hidden"});
        let config: NodeConfig = serde_json::from_value(config).unwrap();
        assert!(!format!("{config:?}").contains("hidden"));
        assert!(!serde_json::to_string(&config).unwrap().contains("hidden"));
    }
}
