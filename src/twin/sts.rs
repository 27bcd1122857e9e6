//! STS: who am I.

use super::protocol::{AwsError, Params, Xml};
use super::world::ACCOUNT;

pub fn answer(action: &str, _: &Params) -> Result<String, AwsError> {
    if action != "GetCallerIdentity" {
        return Err(AwsError::client("InvalidAction", format!("The twin does not know the STS action {action}")));
    }
    let mut xml = Xml::default();
    xml.node("GetCallerIdentityResult", |xml| {
        xml.field("Arn", format!("arn:aws:iam::{ACCOUNT}:user/twin"));
        xml.field("UserId", "AIDATWIN");
        xml.field("Account", ACCOUNT);
    });
    xml.node("ResponseMetadata", |xml| xml.field("RequestId", "00000000-0000-0000-0000-000000000000"));
    Ok(format!("<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">{}</{action}Response>", xml.into_text()))
}
