//! `wasi:http`: requests that handlers send, as far as `[plugins.NAME.http]` grants them.
//!
//! The host looks up the name, decides about each address that it leads to, and connects to one
//! that it has decided about: what the name leads to a moment later does not matter. It follows no
//! redirect; the guest has the answer, and a request that it sends in consequence is held against
//! the grants like any other.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use wasmtime::component::{Linker, ResourceTable};
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttp, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks,
};

mod body;
mod connect;
mod exchange;
mod mask;
#[cfg(test)]
mod tests;

pub use connect::{Resolve, SystemResolver};
use exchange::Exchange;

use super::activity::Activity;
use super::granted::Granted;
use super::refusals::Refusals;

/// The requests of one execution. What is under way ends when this and the guest's table of
/// resources are dropped.
pub struct Requests {
    context: WasiHttpCtx,
    hooks: Hooks,
}

struct Hooks(Arc<Exchange>);

impl Requests {
    /// None yet.
    #[must_use]
    pub fn new(granted: Arc<Granted>, refusals: Arc<Refusals>, activity: Activity) -> Self {
        let exchange = Exchange::new(granted, refusals, activity);
        Self { context: WasiHttpCtx::new(), hooks: Hooks(Arc::new(exchange)) }
    }

    /// What the interface needs.
    pub fn view<'a>(&'a mut self, table: &'a mut ResourceTable) -> WasiHttpCtxView<'a> {
        WasiHttpCtxView { hooks: &mut self.hooks, table, ctx: &mut self.context }
    }

    /// How many had a connection to be sent over, those that had no answer included.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.hooks.0.sent.load(Ordering::Relaxed)
    }
}

/// Adds the interface to a linker. A guest has it whatever it is granted: most toolchains import
/// it unasked.
///
/// # Errors
/// Where the linker has it already.
pub fn add_to_linker<T: Send + 'static>(
    linker: &mut Linker<T>,
    get: fn(&mut T) -> WasiHttpCtxView<'_>,
) -> wasmtime::Result<()> {
    use wasmtime_wasi_http::p2::bindings::{LinkOptions, http};
    http::outgoing_handler::add_to_linker::<T, WasiHttp>(linker, get)?;
    http::types::add_to_linker::<T, WasiHttp>(linker, &(&LinkOptions::default()).into(), get)
}

/// What ends the connection when it is dropped.
type Connection = Box<dyn Future<Output = Result<(), Error>> + Send>;

type Sent = Result<(hyper::Response<WasiBody>, Connection), Error>;

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: hyper::Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let exchange = self.0.clone();
        Box::new(async move { exchange.send(request, options.unwrap_or_default()).await })
    }
}
