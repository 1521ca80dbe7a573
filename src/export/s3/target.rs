//! Where in S3 a file goes, checked. Pure.

use http::Uri;
use rusty_s3::{Bucket, UrlStyle};

use super::S3Error;

/// A region has to be signed; servers other than Amazon's take this one.
const DEFAULT_REGION: &str = "us-east-1";
/// Longest prefix.
const PREFIX: usize = 512;

/// A place in S3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Target {
    /// Name of the bucket.
    pub bucket: String,
    /// Folder in it; empty for none.
    pub prefix: String,
    /// Such as `https://minio.example.com`; none for Amazon's.
    pub endpoint: Option<String>,
    /// None for `us-east-1`.
    pub region: Option<String>,
}

/// A place that can be, for one file.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub bucket: Bucket,
    pub key: String,
    pub endpoint: String,
}

impl S3Target {
    /// Where a file of this name goes.
    pub(super) fn place(&self, file_name: &str) -> Result<Place, S3Error> {
        let region = self.region.as_deref().unwrap_or(DEFAULT_REGION);
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if region.is_empty() || region.len() > 64 || !region.bytes().all(word) {
            return Err(invalid("region", "must be one such as eu-central-1"));
        }
        let is_name = (3..=63).contains(&self.bucket.len())
            && self.bucket.bytes().all(|b| word(b) || b == b'.')
            && !self.bucket.contains("..")
            && !self.bucket.starts_with(['-', '.'])
            && !self.bucket.ends_with(['-', '.']);
        if !is_name {
            return Err(invalid(
                "bucket",
                "must be the name of a bucket: 3 to 63 of a-z, 0-9, - and .",
            ));
        }
        let (endpoint, style) = match &self.endpoint {
            Some(endpoint) => (checked(endpoint)?, UrlStyle::Path),
            // Amazon's certificates are of one label.
            None if self.bucket.contains('.') => (amazon(region), UrlStyle::Path),
            None => (amazon(region), UrlStyle::VirtualHost),
        };
        let url = endpoint
            .parse()
            .map_err(|_| invalid("endpoint", "must be a URL such as https://s3.example.com"))?;
        let bucket = Bucket::new(url, style, self.bucket.clone(), region.to_owned())
            .map_err(|_| invalid("endpoint", "must be a URL such as https://s3.example.com"))?;
        Ok(Place {
            bucket,
            key: self.key(file_name)?,
            endpoint,
        })
    }

    fn key(&self, file_name: &str) -> Result<String, S3Error> {
        let prefix = self.prefix.trim_end_matches('/');
        if prefix.is_empty() {
            return Ok(file_name.to_owned());
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"!_.*'()=-".contains(&b);
        let is_folder =
            |name: &str| !name.is_empty() && name != "." && name != ".." && name.bytes().all(plain);
        if prefix.len() > PREFIX || !prefix.split('/').all(is_folder) {
            return Err(invalid(
                "prefix",
                "must be a folder such as audit/2026: names of letters, digits and !_.*'()=- with / in between, at most 512 \
                 characters",
            ));
        }
        Ok(format!("{prefix}/{file_name}"))
    }
}

/// The endpoint as it was written, if it is one: with a scheme, a host and no credentials.
fn checked(endpoint: &str) -> Result<String, S3Error> {
    let uri: Option<Uri> = endpoint.parse().ok();
    let is_endpoint = uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some_and(|a| !a.as_str().contains('@'))
            && uri.query().is_none()
    });
    if !is_endpoint {
        return Err(invalid(
            "endpoint",
            "must be a URL such as https://s3.example.com, or http://... for one without TLS, without credentials in it",
        ));
    }
    Ok(endpoint.trim_end_matches('/').to_owned())
}

fn amazon(region: &str) -> String {
    let domain = if region.starts_with("cn-") {
        "amazonaws.com.cn"
    } else {
        "amazonaws.com"
    };
    format!("https://s3.{region}.{domain}")
}

fn invalid(field: &'static str, message: &str) -> S3Error {
    S3Error::Invalid {
        field,
        message: message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> S3Target {
        S3Target {
            bucket: "reports".into(),
            prefix: "team=shop/weekly/".into(),
            endpoint: None,
            region: Some("eu-central-1".into()),
        }
    }

    #[test]
    fn a_file_has_its_place() {
        let url = |target: &S3Target| {
            let place = target.place("pay_runs_data.csv").unwrap();
            place.bucket.object_url(&place.key).to_string()
        };
        assert_eq!(
            url(&target()),
            "https://reports.s3.eu-central-1.amazonaws.com/team=shop/weekly/pay_runs_data.csv"
        );
        let dotted = S3Target {
            bucket: "reports.example.com".into(),
            prefix: String::new(),
            ..target()
        };
        assert_eq!(
            url(&dotted),
            "https://s3.eu-central-1.amazonaws.com/reports.example.com/pay_runs_data.csv"
        );
        let own = S3Target {
            endpoint: Some("http://minio.shop.svc:9000/".into()),
            region: None,
            ..target()
        };
        assert_eq!(
            url(&own),
            "http://minio.shop.svc:9000/reports/team=shop/weekly/pay_runs_data.csv"
        );
    }

    #[test]
    fn what_can_not_be_is_refused_with_its_field() {
        let with = |edit: fn(&mut S3Target)| {
            let mut target = target();
            edit(&mut target);
            target.place("x.csv").unwrap_err().to_string()
        };
        for (edit, field) in [
            ((|t| t.bucket = "Reports".into()) as fn(&mut S3Target), "bucket"),
            (|t| t.bucket = "a/../b".into(), "bucket"),
            (|t| t.prefix = "/a".into(), "prefix"),
            (|t| t.prefix = "a/../b".into(), "prefix"),
            (|t| t.prefix = "a//b".into(), "prefix"),
            (|t| t.prefix = "a b".into(), "prefix"),
            (|t| t.region = Some("eu/../".into()), "region"),
            (|t| t.endpoint = Some("s3.example.com".into()), "endpoint"),
            (|t| t.endpoint = Some("ftp://s3.example.com".into()), "endpoint"),
            (
                |t| t.endpoint = Some("https://me:pw@s3.example.com".into()),
                "endpoint",
            ),
        ] {
            let message = with(edit);
            assert!(
                message.starts_with(&format!("spec.destination.s3.{field}: must be ")),
                "{message}"
            );
            assert!(!message.contains("pw"), "{message}");
        }
    }
}
