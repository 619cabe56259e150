//! Certificates, made as they are needed.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use openssl::{
    asn1::Asn1Time,
    bn::BigNum,
    ec::{EcGroup, EcKey},
    hash::MessageDigest,
    nid::Nid,
    pkey::{PKey, Private},
    symm::Cipher,
    x509::{
        X509, X509Name, X509NameBuilder,
        extension::{BasicConstraints, SubjectAlternativeName},
    },
};

/// Somebody with a key and a certificate.
pub struct Identity {
    certificate: X509,
    key: PKey<Private>,
}

/// What a certificate says.
pub struct Claim<'a> {
    /// Its common name.
    pub name: &'a str,
    /// The hosts that it is for.
    pub hosts: &'a [&'a str],
    /// How long it is good for, in days from now; negative for one that was good.
    pub days: i64,
}

impl Claim<'_> {
    /// Good for a while.
    pub fn of<'a>(name: &'a str, hosts: &'a [&'a str]) -> Claim<'a> {
        Claim { name, hosts, days: 30 }
    }

    /// Signed by that authority, or by itself.
    pub fn signed_by(&self, authority: Option<&Identity>) -> Identity {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
        let key = EcKey::generate(&group).and_then(PKey::from_ec_key).expect("a key");
        let mut builder = X509::builder().expect("a builder");
        let serial = BigNum::from_u32(fastrand::u32(1..)).and_then(|n| n.to_asn1_integer());
        let day = 24 * 60 * 60;
        let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs() as i64;
        let time = |days: i64| Asn1Time::from_unix(now + days * day).expect("a time");
        let subject = common_name(self.name);
        let issuer = authority.map_or(&*subject, |signer| signer.certificate.subject_name());
        builder.set_version(2).expect("version 3");
        builder.set_serial_number(&serial.expect("a number")).expect("set");
        builder.set_subject_name(&subject).expect("set");
        builder.set_issuer_name(issuer).expect("set");
        builder.set_pubkey(&key).expect("set");
        builder.set_not_before(&time(self.days.min(0) - 30)).expect("set");
        builder.set_not_after(&time(self.days)).expect("set");
        let mut constraints = BasicConstraints::new();
        if authority.is_none() {
            constraints.ca();
        }
        builder.append_extension(constraints.build().expect("built")).expect("set");
        if !self.hosts.is_empty() {
            let mut names = SubjectAlternativeName::new();
            for host in self.hosts {
                match host.parse::<std::net::IpAddr>() {
                    Ok(_) => names.ip(host),
                    Err(_) => names.dns(host),
                };
            }
            let names = names.build(&builder.x509v3_context(None, None)).expect("built");
            builder.append_extension(names).expect("set");
        }
        let signer = authority.map_or(&key, |signer| &signer.key);
        builder.sign(signer, MessageDigest::sha256()).expect("signed");
        Identity { certificate: builder.build(), key }
    }
}

fn common_name(name: &str) -> X509Name {
    let mut builder = X509NameBuilder::new().expect("a builder");
    builder.append_entry_by_nid(Nid::COMMONNAME, name).expect("a name");
    builder.build()
}

impl Identity {
    /// Writes the certificate.
    pub fn certificate(&self, path: &Path) -> PathBuf {
        fs::write(path, self.certificate.to_pem().expect("PEM")).expect("written");
        path.to_owned()
    }

    /// Writes the key, for its owner alone.
    pub fn key(&self, path: &Path) -> PathBuf {
        write_private(path, &self.key.private_key_to_pem_pkcs8().expect("PEM"))
    }

    /// Writes both into one file, as Kafka reads them.
    pub fn both(&self, path: &Path) -> PathBuf {
        let mut bytes = self.key.private_key_to_pem_pkcs8().expect("PEM");
        bytes.extend(self.certificate.to_pem().expect("PEM"));
        write_private(path, &bytes)
    }

    /// Writes the key so that this password opens it.
    pub fn locked_key(&self, path: &Path, password: &str) -> PathBuf {
        let cipher = Cipher::aes_256_cbc();
        let pem = self.key.private_key_to_pem_pkcs8_passphrase(cipher, password.as_bytes());
        write_private(path, &pem.expect("PEM"))
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> PathBuf {
    fs::write(path, bytes).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("closed to others");
    path.to_owned()
}
