//! The webhook's certificate: made here, kept in a Secret, announced to the API server, rotated before it expires.
//!
//! ```text
//!  Secret (authorities old + new, certificate, key) ──► caBundle of the webhook configurations ──► served
//! ```
//! In this order, and with the old authority still in the bundle, so that replicas which still serve the old certificate are
//! believed until they have read the new one. Real time.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, TimeDelta, Utc};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::ResourceExt;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde_json::json;

use super::Reached;
use super::super::chain::chain;
use crate::api::{FIELD_MANAGER, labels};

const SECRET: &str = "purser-webhook-certificate";
const CONFIGURATION: &str = "purser";
const AUTHORITIES: &str = "ca.crt";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const NOT_AFTER: &str = "purser.dev/not-after";
const NAMES: &str = "purser.dev/names";
const VALID_FOR: TimeDelta = TimeDelta::days(90);
/// Rotated when less than this is left.
const SPARE: TimeDelta = TimeDelta::days(30);
/// Clocks of API servers may be behind.
const BACKDATED: TimeDelta = TimeDelta::hours(1);
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Starts of several replicas may meet.
const TRIES: u32 = 5;

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("could not make the webhook's certificate")]
    Make(#[from] rcgen::Error),
    #[error("the Secret {SECRET} of {namespace} holds no usable certificate: {why}; delete it, and purser makes another")]
    Unusable { namespace: String, why: String },
    #[error("could not {doing}")]
    Kubernetes { doing: String, #[source] source: Box<kube::Error> },
    #[error("the Secret {SECRET} changed at every try; another purser may be rotating it in a loop")]
    Contended,
}

pub struct Certificates {
    client: Client,
    namespace: String,
    reached: Reached,
    served: Arc<Served>,
}

/// What the TLS server shows now.
#[derive(Debug, Default)]
struct Served(RwLock<Option<Kept>>);

#[derive(Clone, Debug)]
struct Kept {
    key: Arc<CertifiedKey>,
    authorities: Vec<u8>,
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).as_ref().map(|kept| Arc::clone(&kept.key))
    }
}

impl Certificates {
    pub async fn open(client: Client, namespace: &str, reached: Reached) -> Result<Certificates, CertificateError> {
        let certificates = Certificates { client, namespace: namespace.to_owned(), reached, served: Arc::default() };
        certificates.refresh().await?;
        Ok(certificates)
    }

    pub fn resolver(&self) -> Arc<dyn ResolvesServerCert> {
        self.served.clone()
    }

    /// Looks again and again; what fails now is tried again a minute later, a month before anything expires.
    pub async fn keep_fresh(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let refreshed = async {
                self.refresh().await?;
                self.announce().await
            };
            if let Err(error) = refreshed.await {
                tracing::warn!(error = %chain(&error), "the webhook's certificate was not refreshed");
            }
        }
    }

    /// Reads the Secret, rotates what is in it if it is time, and serves it once the API server trusts it.
    async fn refresh(&self) -> Result<(), CertificateError> {
        for _ in 0..TRIES {
            let stored = self.secrets().get_opt(SECRET).await.map_err(doing("read the webhook's certificate"))?;
            let fresh = stored.as_ref().filter(|secret| !needs_rotation(secret, &self.names(), Utc::now()));
            let Some(secret) = fresh else {
                self.rotate(stored.as_ref()).await?;
                continue;
            };
            let kept = self.usable(secret)?;
            *self.served.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(kept);
            return Ok(());
        }
        Err(CertificateError::Contended)
    }

    /// Another replica may do the same: who comes second reads what the first wrote.
    async fn rotate(&self, old: Option<&Secret>) -> Result<(), CertificateError> {
        let names = self.names();
        let made = make(&names, Utc::now())?;
        let mut authorities = made.authority.into_bytes();
        authorities.extend(old.and_then(newest_authority).unwrap_or_default());
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(SECRET.to_owned()),
                resource_version: old.and_then(ResourceExt::resource_version),
                annotations: Some([(NOT_AFTER.to_owned(), made.not_after.to_rfc3339()), (NAMES.to_owned(), names.join(","))].into()),
                ..ObjectMeta::default()
            },
            type_: Some("kubernetes.io/tls".to_owned()),
            data: Some(
                [
                    (AUTHORITIES.to_owned(), ByteString(authorities)),
                    (CERTIFICATE.to_owned(), ByteString(made.certificate.into_bytes())),
                    (KEY.to_owned(), ByteString(made.key.into_bytes())),
                ]
                .into(),
            ),
            ..Secret::default()
        };
        let written = match old {
            Some(_) => self.secrets().replace(SECRET, &PostParams::default(), &secret).await,
            None => self.secrets().create(&PostParams::default(), &secret).await,
        };
        match written {
            Ok(_) => {
                tracing::info!(not_after = %made.not_after, "made a certificate for the webhook");
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(doing("write the webhook's certificate")(error)),
        }
    }

    fn usable(&self, secret: &Secret) -> Result<Kept, CertificateError> {
        let unusable = |why: String| CertificateError::Unusable { namespace: self.namespace.clone(), why };
        let data = secret.data.clone().unwrap_or_default();
        let part = |name: &str| data.get(name).map(|bytes| bytes.0.clone()).ok_or_else(|| unusable(format!("{name} is missing")));
        let certificates: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(&part(CERTIFICATE)?).collect();
        let certificates = certificates.map_err(|error| unusable(error.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(&part(KEY)?).map_err(|error| unusable(error.to_string()))?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let key = CertifiedKey::from_der(certificates, key, &provider).map_err(|error| unusable(error.to_string()))?;
        Ok(Kept { key: Arc::new(key), authorities: part(AUTHORITIES)? })
    }

    /// Tells the API server whom to believe and where to ask.
    pub async fn announce(&self) -> Result<(), CertificateError> {
        let kept = self.served.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let Some(kept) = kept else { return Ok(()) };
        let bundle = STANDARD.encode(&kept.authorities);
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let validating: Api<ValidatingWebhookConfiguration> = Api::all(self.client.clone());
        let body = Patch::Apply(validating_configuration(&self.reached, &bundle));
        validating.patch(CONFIGURATION, &params, &body).await.map_err(doing("announce the validating webhook"))?;
        let mutating: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        let body = Patch::Apply(mutating_configuration(&self.reached, &bundle));
        mutating.patch(CONFIGURATION, &params, &body).await.map_err(doing("announce the mutating webhook"))?;
        Ok(())
    }

    fn names(&self) -> Vec<String> {
        match &self.reached {
            Reached::ByService { namespace } => vec![format!("purser.{namespace}.svc"), format!("purser.{namespace}.svc.cluster.local")],
            Reached::ByUrl(url) => url.host_str().map(|host| host.trim_matches(['[', ']']).to_owned()).into_iter().collect(),
        }
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

fn client_config(reached: &Reached, bundle: &str, path: &str) -> serde_json::Value {
    let mut client = match reached {
        Reached::ByService { namespace } => json!({"service": {"name": "purser", "namespace": namespace, "path": path, "port": 443}}),
        Reached::ByUrl(url) => json!({"url": format!("{}{path}", url.as_str().trim_end_matches('/'))}),
    };
    client["caBundle"] = json!(bundle);
    client
}

/// Metadata alone (finalizers, labels) is nobody's concern, so that a job can always be let go.
fn validating_configuration(reached: &Reached, bundle: &str) -> serde_json::Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": CONFIGURATION},
        "webhooks": [{
            "name": "validate.purser.dev",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Fail",
            "timeoutSeconds": 5,
            "clientConfig": client_config(reached, bundle, super::review::PATH),
            "matchConditions": [{"name": "spec-changes", "expression": "request.operation == 'CREATE' || object.spec != oldObject.spec"}],
            "rules": [{
                "apiGroups": ["purser.dev"],
                "apiVersions": ["v1alpha1"],
                "operations": ["CREATE", "UPDATE"],
                "resources": ["trainingjobs", "experiments", "capacitypools", "teams"],
            }],
        }],
    })
}

/// Only pods that opted in, by their own label or their namespace's, and that nobody has held back yet.
fn mutating_configuration(reached: &Reached, bundle: &str) -> serde_json::Value {
    let webhook = |name: &str, namespaces: serde_json::Value, own: &str| {
        json!({
            "name": name,
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Fail",
            "timeoutSeconds": 5,
            "clientConfig": client_config(reached, bundle, super::pods::PATH),
            "namespaceSelector": {"matchExpressions": namespaces},
            "objectSelector": {"matchExpressions": [{"key": labels::POOL, "operator": own}, {"key": labels::JOB_UID, "operator": "DoesNotExist"}]},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
        })
    };
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": CONFIGURATION},
        "webhooks": [
            webhook("pods.purser.dev", json!([]), "Exists"),
            webhook("namespaces.purser.dev", json!([{"key": labels::POOL, "operator": "Exists"}]), "DoesNotExist"),
        ],
    })
}

fn needs_rotation(secret: &Secret, names: &[String], now: DateTime<Utc>) -> bool {
    let annotation = |key: &str| secret.annotations().get(key).cloned();
    let not_after = annotation(NOT_AFTER).and_then(|text| DateTime::parse_from_rfc3339(&text).ok());
    let for_these_names = annotation(NAMES).is_some_and(|text| text == names.join(","));
    !for_these_names || not_after.is_none_or(|not_after| not_after.to_utc() - now < SPARE)
}

/// The first of the bundle: older ones have no certificate left that anybody serves.
fn newest_authority(secret: &Secret) -> Option<Vec<u8>> {
    const END: &str = "-----END CERTIFICATE-----\n";
    let text = String::from_utf8(secret.data.as_ref()?.get(AUTHORITIES)?.0.clone()).ok()?;
    let end = text.find(END)? + END.len();
    Some(text.as_bytes()[..end].to_vec())
}

struct Made {
    authority: String,
    certificate: String,
    key: String,
    not_after: DateTime<Utc>,
}

/// An authority of its own for each certificate; its key is forgotten at once, so that nobody can ever sign another.
fn make(names: &[String], now: DateTime<Utc>) -> Result<Made, CertificateError> {
    let not_after = now + VALID_FOR;
    let dated = |mut params: CertificateParams, name: &str| {
        params.not_before = offset(now - BACKDATED);
        params.not_after = offset(not_after);
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let mut authority = dated(CertificateParams::default(), &format!("purser webhook authority {}", now.timestamp()));
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let authority_key = KeyPair::generate()?;
    let authority_certificate = authority.self_signed(&authority_key)?;
    let mut server = dated(CertificateParams::new(names.to_vec())?, "purser webhook");
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = server.signed_by(&key, &Issuer::new(authority, authority_key))?;
    Ok(Made { authority: authority_certificate.pem().replace("\r\n", "\n"), certificate: certificate.pem(), key: key.serialize_pem(), not_after })
}

fn offset(time: DateTime<Utc>) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(time.timestamp()).unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
}

fn doing(what: &str) -> impl FnOnce(kube::Error) -> CertificateError {
    move |source| CertificateError::Kubernetes { doing: what.to_owned(), source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(not_after: DateTime<Utc>, authorities: &str) -> Secret {
        Secret {
            metadata: ObjectMeta {
                annotations: Some([(NOT_AFTER.to_owned(), not_after.to_rfc3339()), (NAMES.to_owned(), "127.0.0.1".to_owned())].into()),
                ..ObjectMeta::default()
            },
            data: Some([(AUTHORITIES.to_owned(), ByteString(authorities.as_bytes().to_vec()))].into()),
            ..Secret::default()
        }
    }

    #[test]
    fn a_certificate_is_rotated_a_month_before_it_expires_or_when_its_names_change() {
        let (now, names) = (Utc::now(), ["127.0.0.1".to_owned()]);
        assert!(!needs_rotation(&secret(now + TimeDelta::days(31), ""), &names, now));
        assert!(needs_rotation(&secret(now + TimeDelta::days(29), ""), &names, now));
        assert!(needs_rotation(&secret(now + TimeDelta::days(80), ""), &["purser.other.svc".to_owned()], now));
        assert!(needs_rotation(&Secret::default(), &names, now));
    }

    #[test]
    fn the_last_authority_is_believed_for_one_more_rotation() {
        let made = make(&["127.0.0.1".to_owned()], Utc::now()).unwrap();
        let older = make(&["127.0.0.1".to_owned()], Utc::now()).unwrap();
        let bundle = format!("{}{}", made.authority, older.authority);
        assert_eq!(newest_authority(&secret(Utc::now(), &bundle)).unwrap(), made.authority.as_bytes());
    }

    #[test]
    fn what_is_installed_is_what_purser_announces() {
        let installed: Vec<serde_json::Value> = serde_saphyr::from_multiple(include_str!("../../../manifests/install/webhook.yaml")).unwrap();
        let reached = Reached::ByService { namespace: "purser-system".to_owned() };
        let mut announced = vec![validating_configuration(&reached, ""), mutating_configuration(&reached, "")];
        for webhook in announced.iter_mut().flat_map(|one| one["webhooks"].as_array_mut().unwrap()) {
            webhook["clientConfig"].as_object_mut().unwrap().remove("caBundle");
        }
        assert_eq!(installed, announced);
    }

    #[test]
    fn what_is_made_can_be_served() {
        let made = make(&["purser.purser-system.svc".to_owned(), "127.0.0.1".to_owned()], Utc::now()).unwrap();
        let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(made.certificate.as_bytes()).map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_slice(made.key.as_bytes()).unwrap();
        assert!(CertifiedKey::from_der(certificates, key, &rustls::crypto::aws_lc_rs::default_provider()).is_ok());
    }
}
