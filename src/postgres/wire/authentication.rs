//! Login: cleartext, MD5 and SCRAM-SHA-256.

use bytes::BytesMut;
use postgres_protocol::{
    authentication::{
        md5_hash,
        sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256},
    },
    message::frontend,
};

use super::fields::Fields;
use crate::postgres::{Secret, error::PostgresError};

/// `AuthenticationRequest`'s kinds (C: `protocol.h`, `AUTH_REQ_*`).
const OK: i32 = 0;
const CLEARTEXT: i32 = 3;
const MD5: i32 = 5;
const SASL: i32 = 10;
const SASL_CONTINUE: i32 = 11;
const SASL_FINAL: i32 = 12;

/// One login.
pub struct Authentication<'a> {
    user: &'a str,
    password: Option<&'a Secret>,
    scram: Option<ScramSha256>,
}

impl<'a> Authentication<'a> {
    /// As `user`, with the password where the server asks for one.
    pub fn new(user: &'a str, password: Option<&'a Secret>) -> Self {
        Self { user, password, scram: None }
    }

    /// Answers one request.
    pub(super) fn answer(
        &mut self,
        body: &[u8],
        outgoing: &mut BytesMut,
    ) -> Result<(), PostgresError> {
        let mut fields = Fields::new(body);
        match fields.i32("authentication kind")? {
            OK => Ok(()),
            CLEARTEXT => {
                let password = self.password()?;
                frontend::password_message(password, outgoing).map_err(unusable)
            }
            MD5 => {
                let salt = fields.bytes(4, "salt")?.first_chunk::<4>().copied();
                let salt = salt.ok_or_else(|| unusable("the salt is too short"))?;
                let hash = md5_hash(self.user.as_bytes(), self.password()?, salt);
                frontend::password_message(hash.as_bytes(), outgoing).map_err(unusable)
            }
            SASL => self.begin_scram(fields, outgoing),
            SASL_CONTINUE => {
                let scram = self.scram()?;
                scram.update(fields.rest()).map_err(unusable)?;
                frontend::sasl_response(scram.message(), outgoing).map_err(unusable)
            }
            SASL_FINAL => self.scram()?.finish(fields.rest()).map_err(unusable),
            kind => Err(unusable(format!("the server asks for method {kind}, which is not built"))),
        }
    }

    fn begin_scram(
        &mut self,
        mut fields: Fields<'_>,
        outgoing: &mut BytesMut,
    ) -> Result<(), PostgresError> {
        let mut offered = Vec::new();
        loop {
            match fields.text("SASL mechanism")? {
                end if end.is_empty() => break,
                mechanism => offered.push(mechanism),
            }
        }
        if !offered.iter().any(|mechanism| mechanism == SCRAM_SHA_256) {
            return Err(unusable(format!("the server offers only {}", offered.join(", "))));
        }
        let scram = ScramSha256::new(self.password()?, ChannelBinding::unsupported());
        frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), outgoing)
            .map_err(unusable)?;
        self.scram = Some(scram);
        Ok(())
    }

    fn scram(&mut self) -> Result<&mut ScramSha256, PostgresError> {
        self.scram.as_mut().ok_or_else(|| unusable("SASL goes on that never began"))
    }

    fn password(&self) -> Result<&'a [u8], PostgresError> {
        let password = self.password.ok_or_else(|| {
            unusable("the server asks for a password, and neither postgres.url nor postgres.password_file has one")
        })?;
        Ok(password.reveal().as_bytes())
    }
}

fn unusable(what: impl ToString) -> PostgresError {
    PostgresError::Authentication { what: what.to_string() }
}
