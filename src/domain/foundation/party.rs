//! Documents of the parties: sellers (our legal entities) and customers with their legal entities and people.
//!
//! A reader checks the form and returns the canonical document; absent fields stay absent and nulls stay
//! null, since an upsert keeps what is absent, clears what is null and replaces lists. What needs the
//! database (does the currency exist?) is checked there.

use super::fault::Fault;
use super::json::{Fields, Node, Tree};
use super::money::Unit;
use std::collections::HashSet;

/// Roles of a contact: the customer's people, then ours.
pub const CONTACT_ROLES: [&str; 6] = ["billing", "ap", "technical", "exec", "account_executive", "csm"];
/// Most aliases, bill_tos, contacts or bank accounts in one document.
pub const PARTY_LIST_MAX: usize = 1000;

const SELLER_FIELDS: [&str; 9] = [
    "key",
    "name",
    "currency",
    "time_zone",
    "fiscal_year_start",
    "invoice_series",
    "address",
    "tax_ids",
    "bank_accounts",
];
const CUSTOMER_FIELDS: [&str; 10] = [
    "key",
    "name",
    "seller",
    "currency",
    "time_zone",
    "aliases",
    "attributes",
    "bill_tos",
    "contacts",
    "overrides",
];

/// Checks a seller document. What may be null goes back to its default then.
pub fn read_seller(document: &Node) -> Result<(), Fault> {
    let mut fields = document.fields_of(&SELLER_FIELDS)?;
    fields.required("key")?.key()?;
    name(&mut fields)?;
    if let Some(currency) = fields.optional("currency") {
        unit(&currency)?;
    }
    if let Some(zone) = fields.optional("time_zone") {
        zone.text()?;
    }
    if let Some(month) = fields.optional("fiscal_year_start")
        && !(1..=12).contains(&month.integer()?)
    {
        return Err(month.fault("must be a month from 1 to 12"));
    }
    if let Some(series) = fields.optional("invoice_series") {
        let text = series.text()?;
        if text.is_empty() || text.len() > 12 || !text.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(series.fault("must be 1 to 12 letters and digits"));
        }
    }
    address_and_tax_ids(&mut fields)?;
    if let Some(accounts) = fields.optional("bank_accounts") {
        unique_keys(&accounts, "key", |account| {
            let mut fields = account.fields_of(&["key", "currency", "holder", "details"])?;
            let key = fields.required("key")?.key()?.to_string();
            unit(&fields.required("currency")?)?;
            fields.required("holder")?.text()?;
            if let Some(details) = fields.optional("details") {
                details.entries()?;
            }
            fields.finish()?;
            Ok(key)
        })?;
    }
    fields.finish()
}

/// Checks a customer document. `overrides` is left to the contracts layer, which owns their form.
pub fn read_customer(document: &Node) -> Result<(), Fault> {
    let mut fields = document.fields_of(&CUSTOMER_FIELDS)?;
    fields.required("key")?.key()?;
    name(&mut fields)?;
    for key in ["seller", "time_zone"] {
        if let Some(node) = fields.optional(key) {
            node.text()?;
        }
    }
    if let Some(currency) = fields.optional("currency") {
        unit(&currency)?;
    }
    if let Some(aliases) = fields.optional("aliases") {
        unique_keys(&aliases, "", |alias| alias.key().map(str::to_string))?;
    }
    if let Some(attributes) = fields.optional("attributes") {
        attributes.entries()?;
    }
    if let Some(bill_tos) = fields.optional("bill_tos") {
        if bill_tos.items()?.is_empty() {
            return Err(bill_tos.fault("must name at least one legal entity").with_hint(
                "Leave the field out to keep the present ones; a new customer gets one with its own key.",
            ));
        }
        unique_keys(&bill_tos, "key", |bill_to| {
            let mut fields =
                bill_to.fields_of(&["key", "name", "address", "tax_ids", "email", "time_zone"])?;
            let key = fields.required("key")?.key()?.to_string();
            fields.required("name")?.text()?;
            address_and_tax_ids(&mut fields)?;
            for key in ["email", "time_zone"] {
                if let Some(node) = fields.optional(key) {
                    node.text()?;
                }
            }
            fields.finish()?;
            Ok(key)
        })?;
    }
    if let Some(contacts) = fields.optional("contacts") {
        for contact in contacts.items_at_most(PARTY_LIST_MAX)? {
            let mut fields = contact.fields_of(&["role", "name", "email", "bill_to"])?;
            fields.required("role")?.word(&CONTACT_ROLES)?;
            fields.required("name")?.text()?;
            for key in ["email", "bill_to"] {
                if let Some(node) = fields.optional(key) {
                    node.text()?;
                }
            }
            fields.finish()?;
        }
    }
    fields.raw("overrides");
    fields.finish()
}

/// A name: present in the text or absent, never null or empty.
fn name(fields: &mut Fields) -> Result<(), Fault> {
    if let Some(name) = fields.raw("name")
        && name.text()?.trim().is_empty()
    {
        return Err(name.fault("must not be empty"));
    }
    Ok(())
}

fn unit(node: &Node) -> Result<(), Fault> {
    Unit::parse(node.text()?).map(drop).map_err(|fault| node.rehint(fault))
}

fn address_and_tax_ids(fields: &mut Fields) -> Result<(), Fault> {
    if let Some(address) = fields.optional("address") {
        for (_, line) in address.entries()? {
            if !matches!(line.tree, Tree::Text(_) | Tree::Null) {
                return Err(line.fault("must be a string"));
            }
        }
    }
    if let Some(tax_ids) = fields.optional("tax_ids") {
        for tax_id in tax_ids.items_at_most(PARTY_LIST_MAX)? {
            let mut fields = tax_id.fields_of(&["type", "value"])?;
            fields.required("type")?.text()?;
            fields.required("value")?.text()?;
            fields.finish()?;
        }
    }
    Ok(())
}

/// Reads every item of a list and refuses a key that stands twice.
fn unique_keys(list: &Node, field: &str, read: impl Fn(&Node) -> Result<String, Fault>) -> Result<(), Fault> {
    let mut seen = HashSet::new();
    for item in list.items_at_most(PARTY_LIST_MAX)? {
        let key = read(&item)?;
        if !seen.insert(key.clone()) {
            let place = if field.is_empty() { item.path } else { format!("{}.{field}", item.path) };
            return Err(Fault::document(&place, format!("\"{key}\" stands twice")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::foundation::json;

    fn fault(read: fn(&Node) -> Result<(), Fault>, text: &str) -> String {
        read(&Node::root(&json::parse(text).unwrap())).unwrap_err().message
    }

    #[test]
    fn reads_whole_documents() {
        let seller = r#"{"key":"ie","name":"Acme Ireland","currency":"EUR","time_zone":"Europe/Dublin","fiscal_year_start":4,
            "invoice_series":"IE","address":{"line1":"1 Quay","country":"IE"},"tax_ids":[{"type":"vat","value":"IE1"}],
            "bank_accounts":[{"key":"main","currency":"EUR","holder":"Acme","details":{"iban":"IE00"}}]}"#;
        read_seller(&Node::root(&json::parse(seller).unwrap())).unwrap();
        let customer = r#"{"key":"globex","name":"Globex","seller":"ie","currency":"EUR","time_zone":"UTC","aliases":["gx"],
            "attributes":{"segment":"smb"},"bill_tos":[{"key":"inc","name":"Globex Inc","email":null}],
            "contacts":[{"role":"ap","name":"Pat","bill_to":"inc"}],"overrides":[]}"#;
        read_customer(&Node::root(&json::parse(customer).unwrap())).unwrap();
        let cleared = r#"{"key":"a","seller":null,"currency":null,"time_zone":null,"aliases":null,"attributes":null,"bill_tos":null,"contacts":null}"#;
        read_customer(&Node::root(&json::parse(cleared).unwrap())).unwrap();
        let cleared = r#"{"key":"a","currency":null,"time_zone":null,"fiscal_year_start":null,"invoice_series":null,"address":null,"tax_ids":null,"bank_accounts":null}"#;
        read_seller(&Node::root(&json::parse(cleared).unwrap())).unwrap();
    }

    #[test]
    fn names_the_place_of_a_fault() {
        assert_eq!(fault(read_customer, r#"{"name":"x"}"#), "key: is missing");
        assert_eq!(fault(read_customer, r#"{"key":"a","name":null}"#), "name: must be a string, not null");
        assert_eq!(
            fault(read_customer, r#"{"key":"a","zone":"UTC"}"#),
            "zone: is not a field of this document"
        );
        assert_eq!(
            fault(read_customer, r#"{"key":" a"}"#),
            "key: \" a\" has a space at an end or a control character"
        );
        assert_eq!(
            fault(read_customer, r#"{"key":"a","bill_tos":[{"key":"i","name":"I"},{"key":"i","name":"J"}]}"#),
            "bill_tos[1].key: \"i\" stands twice"
        );
        assert_eq!(
            fault(read_customer, r#"{"key":"a","bill_tos":[]}"#),
            "bill_tos: must name at least one legal entity"
        );
        assert_eq!(
            fault(read_customer, r#"{"key":"a","contacts":[{"role":"boss","name":"x"}]}"#),
            "contacts[0].role: \"boss\" is not known"
        );
        assert!(
            fault(read_customer, r#"{"key":"a","currency":"$"}"#)
                .starts_with("currency: \"$\" is not a currency")
        );
        assert_eq!(
            fault(read_seller, r#"{"key":"a","fiscal_year_start":13}"#),
            "fiscal_year_start: must be a month from 1 to 12"
        );
        assert_eq!(
            fault(read_seller, r#"{"key":"a","invoice_series":"IN-V"}"#),
            "invoice_series: must be 1 to 12 letters and digits"
        );
        assert_eq!(
            fault(read_seller, r#"{"key":"a","tax_ids":[{"type":"vat"}]}"#),
            "tax_ids[0].value: is missing"
        );
    }
}
