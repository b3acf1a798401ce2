//! Listeners, routers, middleware, shutdown; thin handlers only.
