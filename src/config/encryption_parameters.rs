//! What `postgres.url` says of encryption: libpq's parameters and defaults (manual page
//! libpq-connect).

use std::path::{Path, PathBuf};

use crate::postgres::{ChannelBinding, Encryption, Roots, Secret, Source, SslMode, SslNegotiation};

/// As they are written, the last of each name.
#[derive(Debug, Default)]
pub(super) struct EncryptionParameters {
    mode: Option<SslMode>,
    negotiation: SslNegotiation,
    channel_binding: ChannelBinding,
    roots: Option<String>,
    revoked: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    key_password: Option<Secret>,
}

const MODES: [(&str, SslMode); 6] = [
    ("disable", SslMode::Disable),
    ("allow", SslMode::Allow),
    ("prefer", SslMode::Prefer),
    ("require", SslMode::Require),
    ("verify-ca", SslMode::VerifyCa),
    ("verify-full", SslMode::VerifyFull),
];

const NEGOTIATIONS: [(&str, SslNegotiation); 2] =
    [("postgres", SslNegotiation::Postgres), ("direct", SslNegotiation::Direct)];

const BINDINGS: [(&str, ChannelBinding); 3] = [
    ("disable", ChannelBinding::Disable),
    ("prefer", ChannelBinding::Prefer),
    ("require", ChannelBinding::Require),
];

impl EncryptionParameters {
    /// Takes a parameter of the URL, where it is about encryption.
    pub(super) fn take(&mut self, name: &str, value: &str) -> Result<bool, String> {
        let text = || {
            decoded(value).ok_or_else(|| {
                format!("has the parameter {name}, whose value is no text in percent-encoding")
            })
        };
        // As in libpq an empty value says nothing.
        let path = || text().map(|text| (!text.is_empty()).then(|| PathBuf::from(text)));
        match name {
            "sslmode" => self.mode = Some(word(name, &text()?, &MODES)?),
            "sslnegotiation" => self.negotiation = word(name, &text()?, &NEGOTIATIONS)?,
            "channel_binding" => self.channel_binding = word(name, &text()?, &BINDINGS)?,
            "sslrootcert" => self.roots = Some(text()?).filter(|text| !text.is_empty()),
            "sslcrl" => self.revoked = path()?,
            "sslcert" => self.certificate = path()?,
            "sslkey" => self.key = path()?,
            "sslpassword" => self.key_password = Some(Secret::new(text()?)),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// With libpq's defaults, some of which are files of `folder`.
    pub(super) fn settle(self, folder: Option<&Path>) -> Result<Encryption, String> {
        let is_system = self.roots.as_deref() == Some("system");
        let default = if is_system { SslMode::VerifyFull } else { SslMode::default() };
        let mode = self.mode.unwrap_or(default);
        if is_system && mode != SslMode::VerifyFull {
            return Err(contradiction("sslrootcert=system", mode, "use verify-full"));
        }
        if self.negotiation == SslNegotiation::Direct && mode < SslMode::Require {
            return Err(contradiction(
                "sslnegotiation=direct",
                mode,
                "use require, verify-ca or verify-full",
            ));
        }
        if self.channel_binding == ChannelBinding::Require && mode == SslMode::Disable {
            return Err(contradiction(
                "channel_binding=require",
                mode,
                "there is nothing to bind to without TLS",
            ));
        }
        let source = |named: Option<PathBuf>, usual: &str| match (named, folder) {
            (Some(path), _) => Source::Named(path),
            (None, Some(folder)) => Source::Usual(folder.join(usual)),
            (None, None) => Source::Nowhere,
        };
        Ok(Encryption {
            mode,
            negotiation: self.negotiation,
            channel_binding: self.channel_binding,
            roots: if is_system {
                Roots::System
            } else {
                Roots::File(source(self.roots.map(PathBuf::from), "root.crt"))
            },
            revoked: source(self.revoked, "root.crl"),
            certificate: source(self.certificate, "postgresql.crt"),
            key: source(self.key, "postgresql.key"),
            key_password: self.key_password,
        })
    }
}

fn contradiction(parameter: &str, mode: SslMode, mend: &str) -> String {
    let word = MODES.iter().find(|(_, found)| *found == mode).map_or("", |(word, _)| word);
    format!("has {parameter} with sslmode={word}, which contradict each other: {mend}")
}

fn word<T: Copy>(name: &str, text: &str, words: &[(&str, T)]) -> Result<T, String> {
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        format!(
            "has the parameter {name}, which must be one of {}, not \"{text}\"",
            words.join(", ")
        )
    })
}

/// `%2F` is a slash. Nothing where that is broken, or no UTF-8 comes of it.
fn decoded(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        rest = others;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, others) = rest.split_first_chunk::<2>()?;
        let digits = std::str::from_utf8(digits).ok()?;
        // `from_str_radix` would take a sign.
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = others;
    }
    // The system's paths end there.
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(parameters: &[(&str, &str)]) -> Result<Encryption, String> {
        let mut all = EncryptionParameters::default();
        for (name, value) in parameters {
            assert!(all.take(name, value)?, "{name}");
        }
        all.settle(Some(Path::new("/home/fox/.postgresql")))
    }

    #[test]
    fn the_defaults_are_those_of_libpq() {
        let encryption = settled(&[]).expect("nothing is wrong");
        assert_eq!(encryption.mode, SslMode::Prefer);
        assert_eq!(encryption.channel_binding, ChannelBinding::Prefer);
        let usual = |name: &str| Source::Usual(Path::new("/home/fox/.postgresql").join(name));
        assert_eq!(encryption.roots, Roots::File(usual("root.crt")));
        assert_eq!(encryption.certificate, usual("postgresql.crt"));
        assert_eq!(encryption.key, usual("postgresql.key"));
        assert_eq!(encryption.revoked, usual("root.crl"));
    }

    #[test]
    fn the_systems_authorities_are_trusted_for_a_name_alone() {
        let encryption = settled(&[("sslrootcert", "system")]).expect("it says no mode");
        assert_eq!((encryption.mode, encryption.roots), (SslMode::VerifyFull, Roots::System));
        let problem = settled(&[("sslrootcert", "system"), ("sslmode", "require")]);
        let problem = problem.expect_err("weak");
        assert!(
            problem.contains("sslmode=require") && problem.contains("verify-full"),
            "{problem}"
        );
    }

    #[test]
    fn files_are_named_in_percent_encoding() {
        let encryption = settled(&[("sslrootcert", "%2Fetc%2Fca%20one.crt"), ("sslkey", "")]);
        let encryption = encryption.expect("paths");
        assert_eq!(encryption.roots, Roots::File(Source::Named("/etc/ca one.crt".into())));
        assert!(matches!(encryption.key, Source::Usual(_)));
        for broken in ["%2", "%zz", "%+1", "%ff", "%00"] {
            settled(&[("sslcert", broken)]).expect_err(broken);
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for (one, other) in [
            (("sslnegotiation", "direct"), ("sslmode", "prefer")),
            (("sslnegotiation", "direct"), ("sslmode", "disable")),
            (("channel_binding", "require"), ("sslmode", "disable")),
        ] {
            let problem = settled(&[one, other]).expect_err("a contradiction");
            assert!(problem.contains("contradict"), "{problem}");
        }
        settled(&[("sslnegotiation", "direct")]).expect_err("prefer is the default");
        settled(&[("sslnegotiation", "direct"), ("sslmode", "require")]).expect("both strong");
    }

    #[test]
    fn a_word_that_is_none_names_those_that_are() {
        for name in ["sslmode", "sslnegotiation", "channel_binding"] {
            let problem = settled(&[(name, "mood")]).expect_err("no such word");
            assert!(problem.contains(name) && problem.contains("\"mood\""), "{problem}");
        }
        let problem = settled(&[("sslmode", "verify_full")]).expect_err("no such word");
        assert!(problem.contains("verify-full"), "{problem}");
    }

    #[test]
    fn the_password_of_a_key_is_never_printed() {
        let encryption = settled(&[("sslpassword", "se%63ret")]).expect("a password");
        assert!(!format!("{encryption:?}").contains("secret"));
    }
}
