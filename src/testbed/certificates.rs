//! The certificates of one throwaway cluster: an authority, the servers' and clients' certificates it signs, and the key
//! that signs service-account tokens. Made anew at each start, kept under the cluster's folder, valid nowhere else.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use super::TestbedError;

/// The certificate authority of a cluster, with its folder of PEM files.
pub(super) struct Authority {
    folder: PathBuf,
}

/// A certificate and its key, as files.
#[derive(Debug, Clone)]
pub(super) struct Certified {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    /// Makes a new authority and the service-account key pair.
    pub fn create(folder: &Path) -> Result<Self, TestbedError> {
        fs::create_dir_all(folder).map_err(|source| file_error(folder, source))?;
        let authority = Self { folder: folder.to_owned() };
        let key = KeyPair::generate().map_err(certificate_error)?;
        let certificate = authority_params().self_signed(&key).map_err(certificate_error)?;
        authority.write("ca", &certificate.pem(), &key)?;
        let tokens = KeyPair::generate().map_err(certificate_error)?;
        authority.write("service-account", &tokens.public_key_pem(), &tokens)?;
        Ok(authority)
    }

    /// The authority that [`Self::create`] left in `folder`.
    pub fn open(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    pub fn authority(&self) -> Certified {
        self.files("ca")
    }

    /// The key pair of service-account tokens; `certificate` holds the public key.
    pub fn service_account(&self) -> Certified {
        self.files("service-account")
    }

    /// Signs a server's certificate for these DNS names and addresses.
    pub fn server(&self, name: &str, alternatives: Vec<String>) -> Result<Certified, TestbedError> {
        let mut params = CertificateParams::new(alternatives).map_err(certificate_error)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(name, params)
    }

    /// Signs a client's certificate: Kubernetes reads the user from its common name and the groups from its organisations.
    pub fn client(&self, name: &str, user: &str, group: &str) -> Result<Certified, TestbedError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, user);
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(name, params)
    }

    fn sign(&self, name: &str, mut params: CertificateParams) -> Result<Certified, TestbedError> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let authority_key = KeyPair::from_pem(&read(&self.authority().key)?).map_err(certificate_error)?;
        let issuer = Issuer::new(authority_params(), authority_key);
        let key = KeyPair::generate().map_err(certificate_error)?;
        let certificate = params.signed_by(&key, &issuer).map_err(certificate_error)?;
        self.write(name, &certificate.pem(), &key)
    }

    /// Where the files of this name are or will be.
    pub fn files(&self, name: &str) -> Certified {
        Certified { certificate: self.folder.join(format!("{name}.crt")), key: self.folder.join(format!("{name}.key")) }
    }

    fn write(&self, name: &str, certificate: &str, key: &KeyPair) -> Result<Certified, TestbedError> {
        let files = self.files(name);
        fs::write(&files.certificate, certificate).map_err(|source| file_error(&files.certificate, source))?;
        write_private(&files.key, &key.serialize_pem())?;
        Ok(files)
    }
}

/// The authority's parameters; the same at every call, so that signing later needs its key only.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "purser-testbed");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params
}

/// Writes a file that only its owner may read.
pub(super) fn write_private(path: &Path, text: &str) -> Result<(), TestbedError> {
    let open = || fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    open().and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes())).map_err(|source| file_error(path, source))
}

fn read(path: &Path) -> Result<String, TestbedError> {
    fs::read_to_string(path).map_err(|source| file_error(path, source))
}

fn file_error(path: &Path, source: std::io::Error) -> TestbedError {
    TestbedError::File { path: path.to_owned(), source }
}

fn certificate_error(source: rcgen::Error) -> TestbedError {
    TestbedError::Certificate { source }
}
