//! `orders.v1` over gRPC: who may, which fields, and what is told. What happens is the conductor's.

use std::time::Duration;

use tonic::{Request, Response, Status as Answer, async_trait, metadata::MetadataMap};
use uuid::Uuid;

use super::{
    changes,
    conductor::Conductor,
    domain::{STATUSES, Status},
    intake, listing,
    messages::{announced, message, summary},
    saga::{Saga, Step, StepStatus},
    sagas, store,
};
use crate::{
    contracts::orders::{self as contract, orders_service_server::OrdersService},
    kit::{
        caller::{Caller, Trust},
        channel::{idempotency_key, remaining},
        database::Database,
        page::Page,
        refusal::Refusal,
        rules::Fields,
    },
};

/// The contract's implementation.
pub(super) struct Orders {
    pub(super) conductor: Conductor,
    pub(super) database: Database,
    pub(super) trust: Trust,
    /// The longest wait for a saga, when the caller does not say.
    pub(super) patience: Duration,
}

fn unknown(id: Uuid) -> Refusal {
    Refusal::not_found("order", "order_id", &id.to_string())
}

fn order_id(text: &str) -> Result<Uuid, Refusal> {
    let mut fields = Fields::default();
    let id = fields.id("order_id", text);
    fields.check()?;
    Ok(id)
}

impl Orders {
    /// Whose orders a caller means: their own, or with rights those of whom they name.
    fn user(caller: &Caller, named: &str) -> Result<String, Refusal> {
        match caller.user_id() {
            Some(own) if named.is_empty() => Ok(own.to_string()),
            _ => caller.need_self(named).map(|()| named.to_string()),
        }
    }

    /// The saga of an order that this caller may see. Others do not learn whether there is one (SHOP-408).
    async fn visible(
        &self,
        caller: &Caller,
        named: &str,
        id: Uuid,
    ) -> Result<Option<Saga>, Refusal> {
        let may = |owner: &str| {
            caller.is_or_may_act_for(owner)
                // Who acts for everyone may still say for whom.
                && (named.is_empty() || !caller.is_admin() || caller.user_id().is_some() || named == owner)
        };
        if let Some(kept) = sagas::of_order(&self.database, id).await? {
            return if may(&kept.saga.user_id) {
                Ok(Some(kept.saga))
            } else {
                Err(unknown(id))
            };
        }
        // The record is gone after its time; the order is not.
        match store::find(&self.database, id).await? {
            Some(order) if may(&order.user_id) => Ok(None),
            _ => Err(unknown(id)),
        }
    }

    /// The order as far as it is known: its row, or what the saga says until there is one (SHOP-404).
    async fn order(&self, id: Uuid, saga: Option<&Saga>) -> Result<contract::Order, Refusal> {
        let processing = saga.is_some_and(|saga| !saga.is_ended());
        if let Some(order) = store::find(&self.database, id).await? {
            return Ok(message(&order, processing));
        }
        saga.map(announced).ok_or_else(|| unknown(id))
    }

    /// What the request for a new order is answered when its saga is this far.
    async fn outcome(&self, order: Uuid) -> Result<Response<contract::Order>, Refusal> {
        let kept = sagas::of_order(&self.database, order).await?;
        let saga = kept.ok_or_else(|| unknown(order))?.saga;
        let made = saga.step(Step::ConfirmOrder).status == StepStatus::Completed;
        if let Some(why) = &saga.why
            // Also while it still goes back, or does so again: it will not be made.
            && saga.is_turned()
            // One that was through, and cancelled later, was made.
            && !made
        {
            return Err(why.refusal().with("order_id", order));
        }
        let mut response = Response::new(self.order(order, Some(&saga)).await?);
        if !saga.is_ended() {
            accepted(response.metadata_mut(), order);
        }
        Ok(response)
    }
}

/// For gateways: 202, and where to look (SHOP-403).
fn accepted(metadata: &mut MetadataMap, order: Uuid) {
    if let Ok(place) = format!("/orders/{order}/status").parse() {
        metadata.insert("location", place);
    }
    metadata.insert(
        "x-http-code",
        tonic::metadata::MetadataValue::from_static("202"),
    );
}

#[async_trait]
impl OrdersService for Orders {
    async fn create_order(
        &self,
        request: Request<contract::CreateOrderRequest>,
    ) -> Result<Response<contract::Order>, Answer> {
        let (metadata, _, asked) = request.into_parts();
        let caller = self.trust.caller(&metadata);
        let user = Self::user(&caller, &asked.user_id)?;
        let key = idempotency_key(&asked.idempotency_key, &metadata);
        let wanted = intake::read(&asked, &user)?;
        let header = |name: &str| metadata.get(name).and_then(|value| value.to_str().ok());
        let tenant = header("x-tenant-id").unwrap_or_default();
        let order = self
            .conductor
            .accept(&user, tenant, key.as_deref(), wanted)
            .await?;
        let alone = header("prefer").is_some_and(|value| value.contains("respond-async"));
        if !alone {
            let within = remaining(&metadata, self.patience);
            self.conductor.wait(order, within).await;
        }
        Ok(self.outcome(order).await?)
    }

    async fn get_order(
        &self,
        request: Request<contract::GetOrderRequest>,
    ) -> Result<Response<contract::Order>, Answer> {
        let caller = self.trust.caller(request.metadata());
        let id = order_id(&request.get_ref().order_id)?;
        let saga = self
            .visible(&caller, &request.get_ref().user_id, id)
            .await?;
        Ok(Response::new(self.order(id, saga.as_ref()).await?))
    }

    async fn get_order_status(
        &self,
        request: Request<contract::GetOrderStatusRequest>,
    ) -> Result<Response<contract::GetOrderStatusResponse>, Answer> {
        let caller = self.trust.caller(request.metadata());
        let id = order_id(&request.get_ref().order_id)?;
        let saga = self.visible(&caller, "", id).await?;
        let order = self.order(id, saga.as_ref()).await?;
        let why = saga.and_then(|saga| match saga.queued {
            true => Some("PAYMENTS_AWAY".into()),
            false => saga.why.map(|why| why.reason),
        });
        Ok(Response::new(contract::GetOrderStatusResponse {
            order_id: order.order_id,
            status: order.status,
            phase: order.phase,
            processing: order.processing,
            updated_at: order.updated_at,
            reason: why.unwrap_or_default(),
        }))
    }

    async fn list_orders(
        &self,
        request: Request<contract::ListOrdersRequest>,
    ) -> Result<Response<contract::ListOrdersResponse>, Answer> {
        let caller = self.trust.caller(request.metadata());
        let asked = request.get_ref();
        // Administrators who name nobody see everyone's.
        let user = match caller.is_admin() && asked.user_id.is_empty() {
            true => None,
            false => Some(Self::user(&caller, &asked.user_id)?),
        };
        let mut fields = Fields::default();
        let columns = ["created_at", "updated_at", "total", "status"];
        let (page, limit) = (asked.page, asked.limit);
        let page = Page::read(
            &mut fields,
            page,
            limit,
            &asked.sort_by,
            &asked.order,
            &columns,
        );
        let matches = |status: &Status| {
            status.word() == asked.status || status.phase().as_str_name() == asked.status
        };
        let states: Vec<_> = STATUSES.into_iter().filter(matches).collect();
        if states.is_empty() && !asked.status.is_empty() {
            fields.wrong("status", "must be a status or a phase of orders");
        }
        fields.check()?;
        let listed = listing::list(&self.database, user.as_deref(), &states, &page).await;
        let (orders, total) = listed.map_err(Refusal::from)?;
        let extent = page.extent(total);
        Ok(Response::new(contract::ListOrdersResponse {
            orders: orders.iter().map(summary).collect(),
            pagination: Some(contract::Pagination {
                page: extent.page,
                limit: extent.limit,
                total: extent.total,
                pages: extent.pages,
                has_next: extent.has_next,
                has_prev: extent.has_prev,
            }),
        }))
    }

    async fn cancel_order(
        &self,
        request: Request<contract::CancelOrderRequest>,
    ) -> Result<Response<contract::CancelOrderResponse>, Answer> {
        let (metadata, _, asked) = request.into_parts();
        let caller = self.trust.caller(&metadata);
        let mut fields = Fields::default();
        let id = fields.id("order_id", &asked.order_id);
        let reason = fields.text("reason", &asked.reason, 0, 500);
        fields.check()?;
        self.visible(&caller, &asked.user_id, id).await?;
        let within = remaining(&metadata, self.patience);
        let saga = self
            .conductor
            .cancel(id, &reason, caller.actor(), within)
            .await?;
        let order = self.order(id, Some(&saga)).await?;
        Ok(Response::new(contract::CancelOrderResponse {
            order_id: id.to_string(),
            status: order.status,
            refunded: changes::refunds(&saga),
        }))
    }

    async fn update_order_status(
        &self,
        request: Request<contract::UpdateOrderStatusRequest>,
    ) -> Result<Response<contract::Order>, Answer> {
        let caller = self.trust.caller(request.metadata());
        caller.need_admin()?;
        let asked = request.get_ref();
        let mut fields = Fields::default();
        let id = fields.id("order_id", &asked.order_id);
        fields.text("note", &asked.note, 0, 500);
        fields.text("tracking_number", &asked.tracking_number, 0, 100);
        fields.check()?;
        self.conductor.update(id, asked, caller.actor()).await?;
        let saga = sagas::of_order(&self.database, id)
            .await
            .map_err(Refusal::from)?;
        let saga = saga.map(|kept| kept.saga);
        Ok(Response::new(self.order(id, saga.as_ref()).await?))
    }

    /// The saga confirms by itself; this waits for it.
    async fn confirm_order(
        &self,
        request: Request<contract::ConfirmOrderRequest>,
    ) -> Result<Response<contract::Order>, Answer> {
        let (metadata, _, asked) = request.into_parts();
        self.trust.caller(&metadata).need_service()?;
        let id = order_id(&asked.order_id)?;
        let picked = self.conductor.pick_up(id, &mut None).await;
        picked.map_err(Refusal::from)?;
        self.conductor
            .wait(id, remaining(&metadata, self.patience))
            .await;
        let saga = sagas::of_order(&self.database, id)
            .await
            .map_err(Refusal::from)?;
        let saga = saga.map(|kept| kept.saga);
        let order = self.order(id, saga.as_ref()).await?;
        match Status::from_contract(order.status) {
            Some(Status::Confirmed | Status::Shipped | Status::Delivered) => {
                Ok(Response::new(order))
            }
            status => Err(status.unwrap_or(Status::Created).refuse("CONFIRMED").into()),
        }
    }
}
