//! The web server: REST, the dashboard page, `/metrics` and health.
