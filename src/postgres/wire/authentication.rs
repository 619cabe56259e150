//! Login: cleartext, MD5 and SCRAM-SHA-256, bound to the TLS session (`-PLUS`) where there is one.

use bytes::BytesMut;
use postgres_protocol::{
    authentication::{
        md5_hash,
        sasl::{self, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256},
    },
    message::frontend,
};

use super::fields::Fields;
use crate::postgres::{ChannelBinding, Secret, error::PostgresError};

/// `AuthenticationRequest`'s kinds (C: `protocol.h`, `AUTH_REQ_*`).
const OK: i32 = 0;
const CLEARTEXT: i32 = 3;
const MD5: i32 = 5;
const SASL: i32 = 10;
const SASL_CONTINUE: i32 = 11;
const SASL_FINAL: i32 = 12;

/// What a login is bound to, so that nobody in between can pass it on (RFC 5802).
#[derive(Clone, Debug, Default)]
pub struct Binding {
    /// Whether it must be bound.
    pub policy: ChannelBinding,
    /// What to: the data of `tls-server-end-point`.
    pub end_point: Option<Vec<u8>>,
}

/// One login.
pub struct Authentication<'a> {
    user: &'a str,
    password: Option<&'a Secret>,
    binding: Binding,
    scram: Option<ScramSha256>,
    /// The exchange under way is bound.
    binding_used: bool,
    /// It has succeeded.
    is_bound: bool,
}

impl<'a> Authentication<'a> {
    /// As `user`, with the password where the server asks for one.
    pub fn new(user: &'a str, password: Option<&'a Secret>) -> Self {
        let binding = Binding::default();
        Self { user, password, binding, scram: None, binding_used: false, is_bound: false }
    }

    /// Bound to the session that it takes place in.
    #[must_use]
    pub fn bound_by(self, binding: Binding) -> Self {
        Self { binding, ..self }
    }

    /// Answers one request.
    pub(super) fn answer(
        &mut self,
        body: &[u8],
        outgoing: &mut BytesMut,
    ) -> Result<(), PostgresError> {
        let mut fields = Fields::new(body);
        match fields.i32("authentication kind")? {
            OK => self.check_bound(),
            CLEARTEXT => {
                self.check_bindable("a password in the clear")?;
                let password = self.password()?;
                frontend::password_message(password, outgoing).map_err(unusable)
            }
            MD5 => {
                self.check_bindable("MD5")?;
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
            SASL_FINAL => {
                let is_plus = self.binding_used;
                self.scram()?.finish(fields.rest()).map_err(unusable)?;
                self.is_bound = is_plus;
                Ok(())
            }
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
        let (mechanism, binding) = self.binding.choose(&offered)?;
        let scram = ScramSha256::new(self.password()?, binding);
        frontend::sasl_initial_response(mechanism, scram.message(), outgoing).map_err(unusable)?;
        self.scram = Some(scram);
        self.binding_used = mechanism == SCRAM_SHA_256_PLUS;
        Ok(())
    }

    /// A server that lets us in has proven by then that it is the one, where it must.
    fn check_bound(&self) -> Result<(), PostgresError> {
        match self.binding.policy {
            ChannelBinding::Require if !self.is_bound => Err(self.binding.unbound("no password")),
            ChannelBinding::Require | ChannelBinding::Prefer | ChannelBinding::Disable => Ok(()),
        }
    }

    fn check_bindable(&self, method: &str) -> Result<(), PostgresError> {
        match self.binding.policy {
            ChannelBinding::Require => Err(self.binding.unbound(method)),
            ChannelBinding::Prefer | ChannelBinding::Disable => Ok(()),
        }
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

impl Binding {
    /// The mechanism, and what it says of binding: where the server offers none although we could,
    /// it learns that, so that nobody in between takes the offer away.
    fn choose(
        &self,
        offered: &[String],
    ) -> Result<(&'static str, sasl::ChannelBinding), PostgresError> {
        let offers = |mechanism: &str| offered.iter().any(|found| found == mechanism);
        let end_point = match self.policy {
            ChannelBinding::Disable => None,
            ChannelBinding::Prefer | ChannelBinding::Require => self.end_point.clone(),
        };
        match end_point {
            Some(data) if offers(SCRAM_SHA_256_PLUS) => {
                Ok((SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(data)))
            }
            _ if self.policy == ChannelBinding::Require => Err(self.unbound(&offered.join(", "))),
            end_point if offers(SCRAM_SHA_256) => Ok((
                SCRAM_SHA_256,
                match end_point {
                    Some(_) => sasl::ChannelBinding::unrequested(),
                    None => sasl::ChannelBinding::unsupported(),
                },
            )),
            _ => Err(unusable(format!("the server offers only {}", offered.join(", ")))),
        }
    }

    fn unbound(&self, asked: &str) -> PostgresError {
        let why = match &self.end_point {
            Some(_) => format!(
                "the server asks for {asked}: the role's password must be stored as scram-sha-256 \
                 and pg_hba.conf ask for that"
            ),
            None => "there is nothing to bind to: either the connection is not encrypted, or the \
                     server's certificate is signed by an algorithm without a digest (Ed25519, \
                     RSA-PSS)"
                .to_owned(),
        };
        unusable(format!("channel_binding=require, but {why}"))
    }
}

fn unusable(what: impl ToString) -> PostgresError {
    PostgresError::Authentication { what: what.to_string() }
}
