//! Readers whom a reverse proxy in front of the dashboard has signed in, and names in headers.
//!
//! What such a header says counts only from a peer that is trusted by its address, and, as with the session's cookie, only
//! for requests of the dashboard's own pages: a browser is signed in at the proxy whatever page it is on.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use ipnet::IpNet;

use super::{ApiError, access::Identity, certificates::AUTHENTICATED, session::is_from_here};

/// What names begin with that Kubernetes gives to its own parts, and no proxy.
const RESERVED: &str = "system:";
/// Groups of one reader at most.
const GROUPS: usize = 500;

/// How readers may show who they are, beside tokens and client certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum DashboardAuth {
    /// In no other way.
    #[default]
    Token,
    /// By the headers of a trusted reverse proxy.
    Proxy,
}

/// Arguments that say which reverse proxy is believed.
#[derive(clap::Args, Clone, Debug)]
pub struct ProxyArgs {
    /// How readers of the dashboard show who they are: with a token, or also by the headers of a reverse proxy.
    #[arg(long, env = "SCRIPTSCOPE_DASHBOARD_AUTH", value_enum, default_value_t)]
    pub dashboard_auth: DashboardAuth,
    /// Addresses of the reverse proxies whose headers are believed, such as 10.2.0.7/32; several with commas between them.
    /// Whoever can send from there is whom they say they are.
    #[arg(
        long,
        env = "SCRIPTSCOPE_TRUSTED_PROXIES",
        value_name = "CIDR",
        value_delimiter = ',',
        value_parser = trusted,
        required_if_eq("dashboard_auth", "proxy")
    )]
    pub trusted_proxies: Vec<IpNet>,
    /// The header with the name of the user.
    #[arg(
        long,
        env = "SCRIPTSCOPE_PROXY_USER_HEADER",
        value_name = "HEADER",
        default_value = "x-forwarded-user"
    )]
    pub proxy_user_header: HeaderName,
    /// The header with the user's groups, commas between them.
    #[arg(
        long,
        env = "SCRIPTSCOPE_PROXY_GROUPS_HEADER",
        value_name = "HEADER",
        default_value = "x-forwarded-groups"
    )]
    pub proxy_groups_header: HeaderName,
}

/// An address or a block of them, never all there are.
fn trusted(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let net = text
        .parse::<IpNet>()
        .or_else(|error| match text.parse::<IpAddr>() {
            Ok(address) => Ok(address.into()),
            Err(_) => Err(format!(
                "{error}; expected addresses such as 10.2.0.7/32 or fd00::7/128"
            )),
        })?;
    if net.prefix_len() == 0 {
        return Err(
            "this is every address there is, so everybody would be believed; name those of the proxy"
                .to_owned(),
        );
    }
    Ok(net)
}

/// The reverse proxies that are believed.
#[derive(Clone, Debug)]
pub struct ProxyAuth {
    trusted: Vec<IpNet>,
    user: HeaderName,
    groups: HeaderName,
}

impl ProxyAuth {
    /// As the arguments have it; none where no proxy is believed.
    pub fn new(args: &ProxyArgs) -> Option<Self> {
        (args.dashboard_auth == DashboardAuth::Proxy).then(|| Self {
            trusted: args.trusted_proxies.clone(),
            user: args.proxy_user_header.clone(),
            groups: args.proxy_groups_header.clone(),
        })
    }

    /// Whom the proxy says the request is from; none where it says nothing, or is not one that is believed.
    pub(super) fn identity(
        &self,
        peer: Option<IpAddr>,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Option<Identity>, ApiError> {
        // A socket for both kinds of addresses says those of the old kind in the new way.
        let peer = peer.map(|address| address.to_canonical());
        let known = peer.is_some_and(|peer| self.trusted.iter().any(|net| net.contains(&peer)));
        if !known || !is_from_here(method, headers) {
            return Ok(None);
        }
        let mut names = headers.get_all(&self.user).into_iter();
        let Some(name) = names.next() else {
            return Ok(None);
        };
        if names.next().is_some() {
            return Err(refused(
                "it names several users; have it replace the header and not add to it",
            ));
        }
        let username = text(name)?;
        if username.is_empty() {
            return Ok(None);
        }
        let mut groups = Vec::new();
        for value in headers.get_all(&self.groups) {
            let some = text(value)?
                .split(',')
                .map(str::trim)
                .filter(|group| !group.is_empty());
            groups.extend(some.map(str::to_owned));
        }
        if groups.len() > GROUPS {
            return Err(refused(
                "it names more than 500 groups; have it pass on only those that rights are bound to",
            ));
        }
        if username.starts_with(RESERVED) || groups.iter().any(|group| group.starts_with(RESERVED)) {
            return Err(refused(
                "a name begins with system:, which Kubernetes keeps for its own; have the proxy leave it out",
            ));
        }
        groups.push(AUTHENTICATED.to_owned());
        Ok(Some(Identity {
            username: username.to_owned(),
            groups,
            ..Identity::default()
        }))
    }
}

fn text(value: &HeaderValue) -> Result<&str, ApiError> {
    // Bytes of UTF-8; `to_str` takes ASCII alone.
    let text = std::str::from_utf8(value.as_bytes()).map_err(|_| refused("a name in it is not UTF-8"))?;
    Ok(text.trim())
}

fn refused(why: &str) -> ApiError {
    ApiError::unauthenticated(format!(
        "what the reverse proxy says of the user is not taken: {why}"
    ))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        proxy: ProxyArgs,
    }

    fn args(text: &str) -> Result<ProxyArgs, String> {
        let words = std::iter::once("x").chain(text.split_whitespace());
        Command::try_parse_from(words)
            .map(|command| command.proxy)
            .map_err(|error| error.to_string())
    }

    fn proxy() -> ProxyAuth {
        ProxyAuth::new(&args("--dashboard-auth=proxy --trusted-proxies=10.2.0.0/24,fd00::7").unwrap())
            .unwrap()
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut all = HeaderMap::new();
        for (name, value) in pairs {
            all.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        all
    }

    fn of(peer: &str, pairs: &[(&'static str, &'static str)]) -> Result<Option<Identity>, ApiError> {
        proxy().identity(peer.parse().ok(), &Method::GET, &headers(pairs))
    }

    const ANN: (&str, &str) = ("x-forwarded-user", "ann");

    #[test]
    fn only_a_trusted_peer_is_believed() {
        for peer in ["10.2.0.9", "::ffff:10.2.0.9", "fd00::7"] {
            assert_eq!(of(peer, &[ANN]).unwrap().unwrap().username, "ann", "{peer}");
        }
        for peer in ["10.2.1.9", "fd00::8", "127.0.0.1", "::ffff:127.0.0.1", "nobody"] {
            assert_eq!(of(peer, &[ANN]), Ok(None), "{peer}");
        }
    }

    #[test]
    fn a_user_has_the_groups_that_the_proxy_names() {
        let ann = of(
            "10.2.0.9",
            &[
                ANN,
                ("x-forwarded-groups", "shop, bänk,,"),
                ("x-forwarded-groups", "ops"),
            ],
        );
        assert_eq!(
            ann.unwrap().unwrap().groups,
            ["shop", "bänk", "ops", AUTHENTICATED]
        );
        assert_eq!(of("10.2.0.9", &[("x-forwarded-groups", "shop")]), Ok(None));
        assert_eq!(of("10.2.0.9", &[("x-forwarded-user", " ")]), Ok(None));
    }

    #[test]
    fn what_could_be_a_claim_of_the_reader_s_own_is_refused() {
        for pairs in [
            &[ANN, ("x-forwarded-user", "bob")][..],
            &[("x-forwarded-user", "system:admin")],
            &[ANN, ("x-forwarded-groups", "shop,system:masters")],
        ] {
            let error = of("10.2.0.9", pairs).unwrap_err();
            assert_eq!(error.code, "Unauthenticated", "{pairs:?}");
        }
    }

    #[test]
    fn another_site_s_page_has_nobody_s_rights() {
        let asked = |method, site| {
            let sent = headers(&[ANN, ("sec-fetch-site", site)]);
            proxy()
                .identity("10.2.0.9".parse().ok(), &method, &sent)
                .unwrap()
                .is_some()
        };
        assert!(asked(Method::GET, "same-origin") && asked(Method::POST, "same-origin"));
        assert!(asked(Method::GET, "none"));
        assert!(!asked(Method::GET, "cross-site") && !asked(Method::GET, "same-site"));
        assert!(!asked(Method::POST, "none") && !asked(Method::POST, "cross-site"));
        let sent = headers(&[ANN]);
        assert_eq!(
            proxy().identity("10.2.0.9".parse().ok(), &Method::POST, &sent),
            Ok(None)
        );
    }

    #[test]
    fn nobody_is_trusted_unless_named() {
        assert!(ProxyAuth::new(&args("").unwrap()).is_none());
        assert!(ProxyAuth::new(&args("--trusted-proxies=10.2.0.7").unwrap()).is_none());
        assert!(
            args("--dashboard-auth=proxy")
                .unwrap_err()
                .contains("--trusted-proxies")
        );
        for (wrong, why) in [
            ("0.0.0.0/0", "everybody"),
            ("::/0", "everybody"),
            ("proxy", "10.2.0.7/32"),
        ] {
            let error = args(&format!("--trusted-proxies={wrong}")).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
