//! `wasi:sockets`: never granted. Whatever language a guest is written in, its toolchain may import
//! them, so they are linked; a use is refused and told.

use std::sync::Arc;

use wasmtime::Result;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::ResolveAddressStream;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddressFamily};
use wasmtime_wasi::p2::{Network, TcpSocket, UdpSocket};

use super::refusals::{Kind, Refusals};

/// The version of WASI that wasmtime links under; guests of older ones are given the same.
const VERSION: &str = "0.2.12";

/// Puts refusals in the place of what opens sockets and looks up names.
///
/// # Errors
/// Where the linker takes none.
pub fn add_to_linker<T: Send + 'static>(
    linker: &mut Linker<T>,
    get: fn(&mut T) -> Arc<Refusals>,
) -> Result<()> {
    linker.instance(&format!("wasi:sockets/tcp-create-socket@{VERSION}"))?.func_wrap_async(
        "create-tcp-socket",
        move |mut store, (_family,): (IpAddressFamily,)| {
            let refusals = get(store.data_mut());
            Box::new(async move { refuse::<Resource<TcpSocket>>(&refusals, "TCP sockets").await })
        },
    )?;
    linker.instance(&format!("wasi:sockets/udp-create-socket@{VERSION}"))?.func_wrap_async(
        "create-udp-socket",
        move |mut store, (_family,): (IpAddressFamily,)| {
            let refusals = get(store.data_mut());
            Box::new(async move { refuse::<Resource<UdpSocket>>(&refusals, "UDP sockets").await })
        },
    )?;
    linker.instance(&format!("wasi:sockets/ip-name-lookup@{VERSION}"))?.func_wrap_async(
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
