//! What an account is, and what may be written into one (SHOP-201, SHOP-203). Pure: no store, no clock, no wire but the
//! contract's messages.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    contracts::users::{self as wire, UserStatus},
    kit::{refusal::Refusal, rules::Fields, time},
};

/// An account.
#[derive(Clone, Debug, PartialEq)]
pub struct User {
    /// Its name everywhere.
    pub id: Uuid,
    /// Lower case; the login name.
    pub email: String,
    /// In the form of PHC strings.
    pub password_hash: String,
    /// Given name.
    pub first_name: String,
    /// Family name.
    pub last_name: String,
    /// Where to send things.
    pub address: Option<wire::Address>,
    /// Another name, unique.
    pub username: Option<String>,
    /// Only active ones sign in and buy.
    pub status: UserStatus,
    /// What they tell about themselves.
    pub profile: Option<wire::Profile>,
    /// How they like it.
    pub preferences: Option<wire::Preferences>,
    /// What they may do.
    pub roles: Vec<String>,
    /// Rises with each change.
    pub version: i64,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    pub updated_at: i64,
}

impl User {
    /// A new account out of a request; every bad field at once.
    pub fn new(request: &wire::CreateUserRequest, id: Uuid, now: i64) -> Result<Self, Refusal> {
        let mut fields = Fields::default();
        let user = Self {
            id,
            email: email(&mut fields, &request.email),
            password_hash: String::new(),
            first_name: fields.text("first_name", &request.first_name, 1, 100),
            last_name: fields.text("last_name", &request.last_name, 1, 100),
            address: request
                .address
                .as_ref()
                .and_then(|address| checked_address(&mut fields, address)),
            username: request
                .username
                .as_deref()
                .and_then(|name| username(&mut fields, name)),
            status: UserStatus::Active,
            profile: request
                .profile
                .clone()
                .map(|profile| checked_profile(&mut fields, profile)),
            preferences: request
                .preferences
                .clone()
                .map(|preferences| checked_preferences(&mut fields, preferences)),
            roles: vec!["user".into()],
            version: 1,
            created_at: now,
            updated_at: now,
        };
        password(&mut fields, "password", &request.password);
        fields.check()?;
        Ok(user)
    }

    /// Applies what a request changes, and names it.
    pub fn change(
        &mut self,
        request: &wire::UpdateUserRequest,
        now: i64,
    ) -> Result<Vec<&'static str>, Refusal> {
        let mut fields = Fields::default();
        let mut changed = Vec::new();
        let mut set = |name, is: bool| {
            if is {
                changed.push(name);
            }
        };
        if let Some(value) = &request.email {
            let value = email(&mut fields, value);
            set("email", self.email != value);
            self.email = value;
        }
        if let Some(value) = &request.first_name {
            let value = fields.text("first_name", value, 1, 100);
            set("first_name", self.first_name != value);
            self.first_name = value;
        }
        if let Some(value) = &request.last_name {
            let value = fields.text("last_name", value, 1, 100);
            set("last_name", self.last_name != value);
            self.last_name = value;
        }
        if let Some(value) = &request.address {
            let value = checked_address(&mut fields, value);
            set("address", self.address != value);
            self.address = value;
        }
        if let Some(value) = &request.username {
            let value = username(&mut fields, value);
            set("username", self.username != value);
            self.username = value;
        }
        if let Some(value) = &request.profile {
            let value = Some(checked_profile(&mut fields, value.clone()));
            set("profile", self.profile != value);
            self.profile = value;
        }
        if let Some(value) = &request.preferences {
            let value = Some(checked_preferences(&mut fields, value.clone()));
            set("preferences", self.preferences != value);
            self.preferences = value;
        }
        if let Some(value) = &request.password {
            password(&mut fields, "password", value);
            set("password", true);
        }
        match request.status() {
            UserStatus::Unspecified => {}
            UserStatus::Deleted => fields.wrong("status", "is set by deleting the user"),
            status => {
                set("status", self.status != status);
                self.status = status;
            }
        }
        fields.check()?;
        if !changed.is_empty() {
            self.touch(now);
        }
        Ok(changed)
    }

    /// A change was made.
    pub fn touch(&mut self, now: i64) {
        self.version += 1;
        self.updated_at = now;
    }

    /// May sign in and buy.
    pub fn is_active(&self) -> bool {
        self.status == UserStatus::Active
    }

    /// As the contract tells it.
    pub fn to_wire(&self) -> wire::User {
        wire::User {
            user_id: self.id.to_string(),
            email: self.email.clone(),
            first_name: self.first_name.clone(),
            last_name: self.last_name.clone(),
            address: self.address.clone(),
            created_at: Some(time::timestamp(self.created_at)),
            updated_at: Some(time::timestamp(self.updated_at)),
            is_active: self.is_active(),
            username: self.username.clone(),
            status: self.status.into(),
            profile: self.profile.clone(),
            preferences: self.preferences.clone(),
            roles: self.roles.clone(),
        }
    }

    /// The part of it that they tell about themselves.
    pub fn to_profile(&self) -> wire::UserProfile {
        wire::UserProfile {
            user_id: self.id.to_string(),
            first_name: self.first_name.clone(),
            last_name: self.last_name.clone(),
            address: self.address.clone(),
            profile: self.profile.clone(),
            preferences: self.preferences.clone(),
            updated_at: Some(time::timestamp(self.updated_at)),
        }
    }
}

/// What roles allow, as claims of a token say it (SHOP-207).
pub fn permissions(roles: &[String]) -> Vec<&'static str> {
    let of = |role: &String| -> &[&'static str] {
        match role.as_str() {
            "admin" => &[
                "users:admin",
                "products:admin",
                "orders:admin",
                "payments:admin",
            ],
            "user" => &["profile:write", "orders:read", "orders:write"],
            _ => &[],
        }
    };
    roles.iter().flat_map(of).copied().collect()
}

/// Lower case, one `@` with something on both sides, a domain with a dot; not more than mail allows.
fn email(fields: &mut Fields, value: &str) -> String {
    let value = value.trim().to_lowercase();
    let good = value.split_once('@').is_some_and(|(name, domain)| {
        let label = |label: &str| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .chars()
                    .all(|letter| letter.is_alphanumeric() || letter == '-')
        };
        !name.is_empty()
            && name.len() <= 64
            && !name.starts_with('.')
            && !name.ends_with('.')
            && !name.contains("..")
            && name
                .chars()
                .all(|letter| letter.is_alphanumeric() || "!#$%&'*+/=?^_`{|}~.-".contains(letter))
            && domain.contains('.')
            && domain.split('.').all(label)
    });
    if value.is_empty() {
        fields.wrong("email", "is missing");
    } else if !good || value.len() > 254 {
        fields.wrong("email", "is no mail address");
    }
    value
}

/// At least eight characters with a letter and a digit; at most 200, because hashing is work.
fn password(fields: &mut Fields, field: &str, value: &str) {
    if value.is_empty() {
        fields.wrong(field, "is missing");
    } else if value.chars().count() < 8 {
        fields.wrong(field, "needs at least 8 characters");
    } else if value.len() > 200 {
        fields.wrong(field, "has more than 200 bytes");
    } else if !value.chars().any(char::is_alphabetic) || !value.chars().any(char::is_numeric) {
        fields.wrong(field, "needs a letter and a digit");
    }
}

fn username(fields: &mut Fields, value: &str) -> Option<String> {
    if value.is_empty() {
        return None;
    }
    let good = value
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
    if !(3..=30).contains(&value.len()) || !good {
        fields.wrong(
            "username",
            "must be 3 to 30 letters, digits, `_`, `-` or `.`",
        );
    }
    Some(value.to_lowercase())
}

/// An address without a street is none (SHOP-205).
fn checked_address(fields: &mut Fields, address: &wire::Address) -> Option<wire::Address> {
    if *address == wire::Address::default() {
        return None;
    }
    let street = fields.text("address.street", &address.street, 1, 200);
    let city = fields.text("address.city", &address.city, 1, 100);
    fields.three_letters("address.country", &address.country);
    fields.region(
        "address.",
        &address.state,
        &address.zip_code,
        &address.country,
    );
    Some(wire::Address {
        street,
        city,
        state: address.state.trim().into(),
        zip_code: address.zip_code.trim().into(),
        country: address.country.clone(),
    })
}

fn checked_profile(fields: &mut Fields, mut profile: wire::Profile) -> wire::Profile {
    let phone = |letter: char| letter.is_ascii_digit() || "+-() ".contains(letter);
    if !profile.phone.is_empty() && (profile.phone.len() > 30 || !profile.phone.chars().all(phone))
    {
        fields.wrong("profile.phone", "is no telephone number");
    }
    if !profile.avatar_url.is_empty() {
        fields.web_address("profile.avatar_url", &profile.avatar_url);
    }
    if !profile.date_of_birth.is_empty() {
        fields.date("profile.date_of_birth", &profile.date_of_birth);
    }
    profile.gender = fields.text("profile.gender", &profile.gender, 0, 50);
    profile
}

fn checked_preferences(fields: &mut Fields, preferences: wire::Preferences) -> wire::Preferences {
    let lower = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase());
    if !matches!(preferences.language.len(), 0 | 2 | 3) || !lower(&preferences.language) {
        fields.wrong("preferences.language", "must be two or three small letters");
    }
    if !preferences.currency.is_empty() {
        fields.three_letters("preferences.currency", &preferences.currency);
    }
    preferences
}

/// A profile as the store keeps it.
pub(super) fn profile_to_json(profile: &wire::Profile) -> Value {
    json!({
        "phone": profile.phone, "avatar_url": profile.avatar_url,
        "date_of_birth": profile.date_of_birth, "gender": profile.gender,
    })
}

/// Back from what the store keeps.
pub(super) fn profile_from_json(value: &Value) -> wire::Profile {
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_string();
    wire::Profile {
        phone: text("phone"),
        avatar_url: text("avatar_url"),
        date_of_birth: text("date_of_birth"),
        gender: text("gender"),
    }
}

/// Preferences as the store keeps them.
pub(super) fn preferences_to_json(preferences: &wire::Preferences) -> Value {
    let told = preferences.notifications.as_ref();
    let told = told.map(|told| json!({ "email": told.email, "sms": told.sms, "push": told.push }));
    json!({ "language": preferences.language, "currency": preferences.currency, "notifications": told })
}

/// Back from what the store keeps.
pub(super) fn preferences_from_json(value: &Value) -> wire::Preferences {
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_string();
    let told = &value["notifications"];
    wire::Preferences {
        language: text("language"),
        currency: text("currency"),
        notifications: told.is_object().then(|| wire::Notifications {
            email: told["email"] == true,
            sms: told["sms"] == true,
            push: told["push"] == true,
        }),
    }
}
