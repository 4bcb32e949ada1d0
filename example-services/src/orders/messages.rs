//! Orders as the contract has them.

use super::{
    domain::Status,
    listing::Summary,
    saga::{Saga, State},
    store,
};
use crate::{
    contracts::orders as contract,
    kit::{money::Money, time},
};

fn money(minor: i64) -> String {
    Money::from_minor(minor).to_string()
}

fn way(word: &str) -> i32 {
    contract::ShippingMethod::from_str_name(word).unwrap_or_default() as i32
}

fn address(address: &super::domain::Address) -> contract::Address {
    contract::Address {
        street: address.street.clone(),
        city: address.city.clone(),
        state: address.state.clone(),
        zip_code: address.zip_code.clone(),
        country: address.country.clone(),
    }
}

/// An order that has its row.
pub(super) fn message(order: &store::Order, processing: bool) -> contract::Order {
    contract::Order {
        order_id: order.id.to_string(),
        user_id: order.user_id.clone(),
        status: order.status.contract() as i32,
        phase: order.status.phase() as i32,
        items: order
            .items
            .iter()
            .map(|item| contract::OrderItem {
                product_id: item.line.product_id.clone(),
                quantity: item.line.quantity as i32,
                unit_price: money(item.line.unit_price),
                total_price: money(item.line.unit_price * item.line.quantity),
                shipped_quantity: item.shipped as i32,
            })
            .collect(),
        sub_total: money(order.sums.sub_total),
        tax: money(order.sums.tax),
        shipping: money(order.sums.shipping),
        total: money(order.sums.total),
        currency: order.currency.clone(),
        shipping_address: Some(address(&order.address)),
        shipping_method: way(&order.shipping_method),
        notes: order.notes.clone(),
        payment_id: order.payment_id.clone().unwrap_or_default(),
        created_at: Some(time::timestamp(order.created_at)),
        updated_at: Some(time::timestamp(order.updated_at)),
        cancel_reason: order.cancel_reason.clone().unwrap_or_default(),
        tracking_number: order.tracking_number.clone().unwrap_or_default(),
        version: order.version as i32,
        processing,
        history: order
            .history
            .iter()
            .map(|entry| contract::StatusChange {
                status: entry.status.contract() as i32,
                note: entry.note.clone(),
                at: Some(time::timestamp(entry.at)),
                actor: entry.actor.clone(),
            })
            .collect(),
    }
}

/// An order that has no row: not yet, or never.
pub(super) fn announced(saga: &Saga) -> contract::Order {
    let failed = saga.state == State::Failed;
    let status = if failed {
        Status::Cancelled
    } else {
        Status::Created
    };
    let asked = &saga.data.asked;
    contract::Order {
        order_id: saga.order_id.to_string(),
        user_id: saga.user_id.clone(),
        status: status.contract() as i32,
        phase: status.phase() as i32,
        items: asked
            .lines
            .iter()
            .map(|line| contract::OrderItem {
                product_id: line.product_id.clone(),
                quantity: line.quantity as i32,
                unit_price: money(line.unit_price),
                total_price: money(line.unit_price * line.quantity),
                shipped_quantity: 0,
            })
            .collect(),
        shipping_address: Some(address(&asked.address)),
        shipping_method: way(&asked.shipping_method),
        notes: asked.notes.clone(),
        created_at: Some(time::timestamp(saga.created_at)),
        updated_at: Some(time::timestamp(saga.updated_at)),
        cancel_reason: match &saga.why {
            Some(why) if failed => why.reason.clone(),
            _ => String::new(),
        },
        processing: !saga.is_ended(),
        ..contract::Order::default()
    }
}

/// An order in a list.
pub(super) fn summary(order: &Summary) -> contract::OrderSummary {
    contract::OrderSummary {
        order_id: order.id.to_string(),
        user_id: order.user_id.clone(),
        status: order.status.contract() as i32,
        phase: order.status.phase() as i32,
        total: money(order.total),
        currency: order.currency.clone(),
        item_count: order.item_count as i32,
        created_at: Some(time::timestamp(order.created_at)),
        updated_at: Some(time::timestamp(order.updated_at)),
    }
}
