//! Microsoft Entra identities that a program finds in its surroundings, by `azure_identity`.
//!
//! Nothing is asked here: an identity gets its first token when the account is connected.
//!
//! Limits: certificates, client secrets and pipelines are left to the caller, who can bring any credential to
//! [`Account::connect_with`](super::Account::connect_with).

use std::sync::Arc;

use azure_core::credentials::TokenCredential;
use azure_identity::{
    DeveloperToolsCredential, ManagedIdentityCredential, ManagedIdentityCredentialOptions,
    UserAssignedId, WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use tidefeed_runtime::{Context, Error, ErrorKind, Result};

use super::account_config::Credential;

/// # Errors
/// [`ErrorKind::Config`] when the environment lacks what the identity needs.
pub(crate) fn credential(of: &Credential) -> Result<Arc<dyn TokenCredential>> {
    match of {
        Credential::ManagedIdentity { client_id } => {
            let options = ManagedIdentityCredentialOptions {
                user_assigned_id: client_id.clone().map(UserAssignedId::ClientId),
                ..ManagedIdentityCredentialOptions::default()
            };
            let made = ManagedIdentityCredential::new(Some(options));
            Ok(made.context(ErrorKind::Config, || {
                "the managed identity cannot be used: check that the program runs in Azure and has one"
            })?)
        }
        Credential::WorkloadIdentity { client_id } => {
            let options = WorkloadIdentityCredentialOptions {
                client_id: client_id.clone(),
                ..WorkloadIdentityCredentialOptions::default()
            };
            let made = WorkloadIdentityCredential::new(Some(options));
            Ok(made.context(ErrorKind::Config, || {
                "the workload identity cannot be used: check the pod's label azure.workload.identity/use and its service \
                 account"
            })?)
        }
        Credential::DeveloperTools => Ok(DeveloperToolsCredential::new(None)
            .context(ErrorKind::Config, || "the developer tools cannot be used")?),
        Credential::Unset | Credential::Key(_) => Err(Error::internal(
            "an account key is no Microsoft Entra identity",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tests run outside of a pod.
    #[test]
    fn what_the_surroundings_lack_is_said() {
        let of = Credential::WorkloadIdentity { client_id: None };
        let error = credential(&of).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let report = error.report();
        assert!(
            report.contains("workload identity") && report.contains("no tenant ID"),
            "{report}"
        );
        for of in [
            Credential::ManagedIdentity {
                client_id: Some("00000000-0000-0000-0000-000000000000".to_owned()),
            },
            Credential::DeveloperTools,
        ] {
            credential(&of).map(drop).unwrap();
        }
    }
}
