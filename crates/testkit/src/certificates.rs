//! Certificates of a test's own, made when it runs: an authority, and what it signs for servers.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use openssl::{
    asn1::Asn1Time,
    bn::{BigNum, MsbOption},
    ec::{EcGroup, EcKey},
    hash::MessageDigest,
    nid::Nid,
    pkey::{PKey, Private},
    x509::{
        X509, X509Builder, X509NameBuilder,
        extension::{BasicConstraints, KeyUsage, SubjectAlternativeName},
    },
};
use tempfile::TempDir;

const DAY_S: i64 = 86_400;
/// X.509 counts versions from 0: this is version 3.
const VERSION_3: i32 = 2;

/// Who signs certificates, with the file that says to trust it.
#[derive(Debug)]
pub struct Authority {
    key: PKey<Private>,
    certificate: X509,
    folder: TempDir,
}

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// Now.
    Now,
    /// Until yesterday.
    Over,
}

/// A server's certificate and key, as PEM.
#[derive(Clone, Debug)]
pub struct ServerIdentity {
    /// The certificate.
    pub certificate_pem: Vec<u8>,
    /// Its key, in PKCS #8.
    pub key_pem: Vec<u8>,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// If OpenSSL or the disk refuses.
    pub fn new(name: &str) -> Result<Self> {
        let key = new_key()?;
        let mut builder = begun(name, &key, Validity::Now)?;
        let subject = name_of(name)?;
        builder.set_issuer_name(&subject)?;
        builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
        builder.append_extension(KeyUsage::new().critical().key_cert_sign().crl_sign().build()?)?;
        builder.sign(&key, MessageDigest::sha256())?;
        let certificate = builder.build();
        let folder = tempfile::Builder::new().prefix("fleetlog-authority-").tempdir()?;
        fs::write(folder.path().join("ca.pem"), certificate.to_pem()?)?;
        Ok(Self { key, certificate, folder })
    }

    /// The PEM file with its own certificate.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate for a server of this DNS name.
    ///
    /// # Errors
    /// If OpenSSL refuses.
    pub fn issue(&self, host: &str, validity: Validity) -> Result<ServerIdentity> {
        let key = new_key()?;
        let mut builder = begun(host, &key, validity)?;
        builder.set_issuer_name(self.certificate.subject_name())?;
        builder.append_extension(BasicConstraints::new().build()?)?;
        let names = SubjectAlternativeName::new()
            .dns(host)
            .build(&builder.x509v3_context(Some(&self.certificate), None))?;
        builder.append_extension(names)?;
        builder.sign(&self.key, MessageDigest::sha256())?;
        Ok(ServerIdentity {
            certificate_pem: builder.build().to_pem()?,
            key_pem: key.private_key_to_pem_pkcs8()?,
        })
    }
}

impl ServerIdentity {
    /// Writes key and certificate to `key.pem` and `certificate.pem` of a folder; their paths, certificate first.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn write_to(&self, folder: &Path) -> Result<(PathBuf, PathBuf)> {
        let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
        fs::write(&certificate, &self.certificate_pem)?;
        fs::write(&key, &self.key_pem)?;
        Ok((certificate, key))
    }

    /// Both in one, as Kafka's PEM key stores have them.
    #[must_use]
    pub fn key_store(&self) -> Vec<u8> {
        [self.key_pem.as_slice(), self.certificate_pem.as_slice()].concat()
    }
}

fn new_key() -> Result<PKey<Private>> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    Ok(PKey::from_ec_key(EcKey::generate(&group)?)?)
}

/// Everything but who signed it and what it is for.
fn begun(name: &str, key: &PKey<Private>, validity: Validity) -> Result<X509Builder> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("a clock before 1970")?;
    let now_s = i64::try_from(now.as_secs())?;
    let (from_s, until_s) = match validity {
        Validity::Now => (now_s - DAY_S, now_s + DAY_S),
        Validity::Over => (now_s - 2 * DAY_S, now_s - DAY_S),
    };
    let mut serial = BigNum::new()?;
    serial.rand(128, MsbOption::MAYBE_ZERO, false)?;
    let mut builder = X509::builder()?;
    builder.set_version(VERSION_3)?;
    builder.set_serial_number(serial.to_asn1_integer()?.as_ref())?;
    builder.set_subject_name(name_of(name)?.as_ref())?;
    builder.set_not_before(Asn1Time::from_unix(from_s)?.as_ref())?;
    builder.set_not_after(Asn1Time::from_unix(until_s)?.as_ref())?;
    builder.set_pubkey(key)?;
    Ok(builder)
}

fn name_of(name: &str) -> Result<openssl::x509::X509Name> {
    let mut builder = X509NameBuilder::new()?;
    builder.append_entry_by_nid(Nid::COMMONNAME, name)?;
    Ok(builder.build())
}
