//! What a request claims beside its answer: headers and the client's address.

use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Arc;

use http::header::{AUTHORIZATION, CACHE_CONTROL};
use pingora::protocols::http::ServerSession;
use sha2::{Digest, Sha256};

use super::{Context, Proxy, header};
use crate::cache::Control;
use crate::dispatch::{Claim, Drill, NoDrill};
use crate::error::Error;
use crate::flight::{CoalesceMode, Ids, NoMode};
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
) -> Result<Claim, Error> {
    let control = session.get_header(CACHE_CONTROL).and_then(|value| value.to_str().ok());
    let control = control.map(Control::parse).unwrap_or_default();
    let session_id = session.get_header(&header::SESSION_ID).map(|value| {
        let mut hasher = DefaultHasher::new();
        hasher.write(value.as_bytes());
        hasher.finish()
    });
    Ok(Claim {
        keep_alive,
        priority: priority.unwrap_or_default(),
        session: session_id,
        site: site(proxy, session),
        tenant: tenant(session),
        coalesce: coalesce(session, control)?,
        control,
        choice: 0,
        ids: None,
        via: ctx.via.clone(),
        drill: drill(proxy, session)?,
        is_expected: false,
    })
}

/// A hash of the client's key, which is kept nowhere itself.
fn tenant(session: &ServerSession) -> Option<Arc<str>> {
    let mut hasher: Option<Sha256> = None;
    let names = [&AUTHORIZATION, &header::API_KEY];
    for (name, value) in names.into_iter().filter_map(|name| Some((name, session.get_header(name)?))) {
        let hasher = hasher.get_or_insert_default();
        hasher.update(name.as_str());
        hasher.update((value.len() as u64).to_le_bytes());
        hasher.update(value.as_bytes());
    }
    hasher.map(|hasher| format!("{:x}", hasher.finalize()).into())
}

/// `X-Arriero-Coalesce`. Who is particular about the age of its answer, or where it is kept, gets one of its own.
fn coalesce(session: &ServerSession, control: Control) -> Result<Option<CoalesceMode>, Error> {
    if control.is_particular() {
        return Ok(Some(CoalesceMode::Off));
    }
    let Some(value) = session.get_header(&header::COALESCE) else { return Ok(None) };
    let parsed = value.to_str().map_err(|_| NoMode).and_then(str::parse);
    let refuse = |fault| Error::invalid_param("X-Arriero-Coalesce", format!("X-Arriero-Coalesce {fault}"));
    parsed.map(Some).map_err(refuse)
}

/// `X-Priority`; where it is absent the body may say.
pub(super) fn priority(session: &ServerSession) -> Result<Option<Priority>, Error> {
    let Some(value) = session.get_header(&header::PRIORITY) else { return Ok(None) };
    let parsed = value.to_str().map_err(|_| NoPriority).and_then(str::parse);
    parsed.map(Some).map_err(|fault| Error::invalid_param("X-Priority", format!("X-Priority {fault}")))
}

/// `Last-Event-ID` and `X-Arriero-Event-Ids`, for streams of events.
pub(super) fn ids(session: &ServerSession) -> Result<Option<Ids>, Error> {
    if let Some(last) = session.get_header(&header::LAST_EVENT_ID).filter(|value| !value.is_empty()) {
        let id = last.to_str().ok().and_then(|text| text.parse().ok());
        return id.map(|id| Some(Ids::Behind(id))).ok_or(Error::StreamGone);
    }
    let wants = session.get_header(&header::EVENT_IDS).is_some_and(|value| value == "true" || value == "1");
    Ok(wants.then_some(Ids::New))
}

/// `X-Arriero-Fault`, where it counts.
fn drill(proxy: &Proxy, session: &ServerSession) -> Result<Option<Drill>, Error> {
    let value = session.get_header(&header::FAULT).filter(|_| proxy.drills);
    let Some(value) = value.map(|value| String::from_utf8_lossy(value.as_bytes())) else { return Ok(None) };
    let wrong = |fault: NoDrill| Error::invalid_param("X-Arriero-Fault", format!("X-Arriero-Fault {fault}"));
    value.trim().parse().map(Some).map_err(wrong)
}

fn site(proxy: &Proxy, session: &ServerSession) -> Site {
    let header = proxy.site_header.as_ref().and_then(|name| session.get_header(name));
    let header = header.and_then(|value| value.to_str().ok());
    let address = session.client_addr().and_then(|address| address.as_inet()).map(|address| address.ip());
    proxy.sites.find(header, address)
}
