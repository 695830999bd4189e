//! `wasi:sockets`: never granted. Whatever language a guest is written in, its toolchain may import
//! them, so they are linked; a use is refused and told.

use std::sync::Arc;

use wasmtime::Result;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::ResolveAddressStream;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddressFamily};
use wasmtime_wasi::p2::{Network, TcpSocket, UdpSocket};

use super::WASI;
use super::refusals::{Kind, Refusals};

/// Puts refusals in the place of what opens sockets and looks up names.
///
/// # Errors
/// Where the linker takes none.
pub fn add_to_linker<T: Send + 'static>(
    linker: &mut Linker<T>,
    get: fn(&mut T) -> Arc<Refusals>,
) -> Result<()> {
    linker.instance(&format!("wasi:sockets/tcp-create-socket@{WASI}"))?.func_wrap_async(
        "create-tcp-socket",
        move |mut store, (_family,): (IpAddressFamily,)| {
            let refusals = get(store.data_mut());
            Box::new(async move { refuse::<Resource<TcpSocket>>(&refusals, "TCP sockets").await })
        },
    )?;
    linker.instance(&format!("wasi:sockets/udp-create-socket@{WASI}"))?.func_wrap_async(
        "create-udp-socket",
        move |mut store, (_family,): (IpAddressFamily,)| {
            let refusals = get(store.data_mut());
            Box::new(async move { refuse::<Resource<UdpSocket>>(&refusals, "UDP sockets").await })
        },
    )?;
    linker.instance(&format!("wasi:sockets/ip-name-lookup@{WASI}"))?.func_wrap_async(
        "resolve-addresses",
        move |mut store, (_network, _name): (Resource<Network>, String)| {
            let refusals = get(store.data_mut());
            Box::new(async move {
                refuse::<Resource<ResolveAddressStream>>(&refusals, "the addresses of names").await
            })
        },
    )?;
    Ok(())
}

async fn refuse<R>(refusals: &Refusals, what: &str) -> Result<(Result<R, ErrorCode>,)> {
    let message = || {
        format!(
            "the plugin asked for {what}, which no plugin is granted: it can send requests through `wasi:http`, \
             where `allow` in [plugins.{}.http] grants them",
            refusals.plugin()
        )
    };
    refusals.record(Kind::Sockets, what, message).await;
    Ok((Err(ErrorCode::AccessDenied),))
}
