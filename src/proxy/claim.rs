//! What a request claims beside its answer: headers and the client's address.

use std::hash::{DefaultHasher, Hasher as _};

use pingora::protocols::http::ServerSession;

use super::{Context, Proxy};
use crate::dispatch::{Claim, Drill, NoDrill};
use crate::error::Error;
use crate::generation::{NoPriority, Priority};
use crate::routing::Site;
use crate::units::KeepAlive;

/// The claim of the request that has been read.
pub(super) fn of(
    proxy: &Proxy,
    session: &ServerSession,
    ctx: &Context,
    keep_alive: Option<KeepAlive>,
    priority: Option<Priority>,
) -> Claim {
    let session_id = session.get_header("x-session-id").map(|value| {
        let mut hasher = DefaultHasher::new();
        hasher.write(value.as_bytes());
        hasher.finish()
    });
    Claim {
        keep_alive,
        priority: priority.unwrap_or_default(),
        session: session_id,
        site: site(proxy, session),
        via: ctx.via.clone(),
        drill: None,
    }
}

/// `X-Priority`; where it is absent the body may say.
pub(super) fn priority(session: &ServerSession) -> Result<Option<Priority>, Error> {
    let Some(value) = session.get_header("x-priority") else { return Ok(None) };
    let parsed = value.to_str().map_err(|_| NoPriority).and_then(str::parse);
    parsed.map(Some).map_err(|fault| Error::invalid_param("X-Priority", format!("X-Priority {fault}")))
}

/// `X-Arriero-Fault`, where it counts.
pub(super) fn drill(proxy: &Proxy, session: &ServerSession) -> Result<Option<Drill>, Error> {
    let value = session.get_header("x-arriero-fault").filter(|_| proxy.drills);
    let Some(value) = value.map(|value| String::from_utf8_lossy(value.as_bytes())) else { return Ok(None) };
    let wrong = |fault: NoDrill| Error::invalid_param("X-Arriero-Fault", format!("X-Arriero-Fault {fault}"));
    value.trim().parse().map(Some).map_err(wrong)
}

fn site(proxy: &Proxy, session: &ServerSession) -> Site {
    let header = session.get_header(proxy.site_header.as_str()).and_then(|value| value.to_str().ok());
    let address = session.client_addr().and_then(|address| address.as_inet()).map(|address| address.ip());
    proxy.sites.find(header, address)
}
