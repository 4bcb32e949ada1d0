//! What orders ask of the stock, from a request to [`Inventory`](super::inventory::Inventory): who may, which fields, and how
//! often each step ended how.

use tonic::{Request, Response, Status};

use super::{
    domain::Wanted,
    grpc::{Products, id},
};
use crate::{
    contracts::products as wire,
    kit::{channel::idempotency_key, refusal::Refusal, rules::Fields, time},
};

impl Products {
    /// Counts how a step of a reservation ended.
    pub(super) fn counted<T>(
        &self,
        step: &str,
        result: Result<T, Refusal>,
    ) -> Result<Response<T>, Status> {
        let word = match &result {
            Ok(_) => "ok",
            Err(refusal) if refusal.reason() == "INSUFFICIENT_STOCK" => "insufficient_stock",
            Err(refusal) if refusal.is_temporary() => "failed",
            Err(_) => "refused",
        };
        self.steps.with_label_values(&[step, word]).inc();
        Ok(Response::new(result?))
    }

    pub(super) async fn reserve(
        &self,
        request: Request<wire::ReserveInventoryRequest>,
    ) -> Result<wire::Reservation, Refusal> {
        let caller = self.service(request.metadata())?;
        let key = idempotency_key(&request.get_ref().idempotency_key, request.metadata());
        let request = request.get_ref();
        let mut fields = Fields::default();
        let order = fields.id("order_id", &request.order_id);
        let wanted = Wanted::read(&mut fields, &request.items);
        fields.check()?;
        self.inventory
            .reserve(order, &wanted, key.as_deref(), &caller, time::now())
            .await
    }

    pub(super) async fn release(
        &self,
        request: Request<wire::ReleaseInventoryRequest>,
    ) -> Result<wire::Reservation, Refusal> {
        let caller = self.service(request.metadata())?;
        let request = request.get_ref();
        let order = if request.order_id.is_empty() {
            let reservation = id("reservation_id", &request.reservation_id)?;
            self.inventory.order_of(reservation).await?
        } else {
            id("order_id", &request.order_id)?
        };
        self.inventory.release(order, &caller, time::now()).await
    }

    pub(super) async fn commit(
        &self,
        request: Request<wire::CommitInventoryRequest>,
    ) -> Result<wire::Reservation, Refusal> {
        let caller = self.service(request.metadata())?;
        let order = id("order_id", &request.get_ref().order_id)?;
        self.inventory.commit(order, &caller, time::now()).await
    }

    pub(super) async fn restock(
        &self,
        request: Request<wire::RestockInventoryRequest>,
    ) -> Result<wire::Reservation, Refusal> {
        let caller = self.service(request.metadata())?;
        let order = id("order_id", &request.get_ref().order_id)?;
        self.inventory.restock(order, &caller, time::now()).await
    }

    pub(super) async fn adjust(
        &self,
        request: Request<wire::AdjustStockRequest>,
    ) -> Result<wire::Product, Refusal> {
        let caller = self.admin(request.metadata())?;
        let key = idempotency_key(&request.get_ref().idempotency_key, request.metadata());
        let request = request.get_ref();
        let mut fields = Fields::default();
        let product = fields.id("product_id", &request.product_id);
        let change = fields.number("change", request.change, -1_000_000_000, 1_000_000_000);
        if change == 0 {
            fields.wrong("change", "is missing");
        }
        let reason = fields.text("reason", &request.reason, 0, 200);
        fields.check()?;
        self.inventory
            .adjust(
                product,
                change,
                &reason,
                key.as_deref(),
                &caller,
                time::now(),
            )
            .await?;
        Ok(self.one(product, true).await?.to_wire(&self.currency))
    }
}
