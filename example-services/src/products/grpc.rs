//! `products.v1.ProductsService`: who may ask for what, and the steps of each method. Rules are in `domain`.

use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, metadata::MetadataMap};
use uuid::Uuid;

use super::{
    catalog::Catalog,
    domain::{Product, Wanted, narrow},
    inventory::Inventory,
    search::Search,
};
use crate::{
    contracts::products::{self as wire, products_service_server::ProductsService},
    kit::{
        caller::{Caller, Trust},
        page::Page,
        refusal::Refusal,
        rules::Fields,
        time,
    },
};

/// The service. Its parts are shared by clones.
#[derive(Clone)]
pub struct Products {
    /// What there is.
    pub catalog: Catalog,
    /// What is held of it.
    pub inventory: Inventory,
    /// Whom we believe.
    pub trust: Trust,
    /// What prices are in.
    pub currency: String,
    /// `inventory_steps_total` by step and result.
    pub steps: prometheus::IntCounterVec,
}

impl Products {
    pub(super) fn service(&self, metadata: &MetadataMap) -> Result<Caller, Refusal> {
        let caller = self.trust.caller(metadata);
        caller.need_service()?;
        Ok(caller)
    }

    pub(super) fn admin(&self, metadata: &MetadataMap) -> Result<Caller, Refusal> {
        let caller = self.trust.caller(metadata);
        caller.need_admin()?;
        Ok(caller)
    }

    pub(super) async fn one(&self, id: Uuid, sees_all: bool) -> Result<Product, Refusal> {
        visible(self.catalog.product(id).await?, id, sees_all)
    }

    async fn found(
        &self,
        request: Request<wire::SearchProductsRequest>,
    ) -> Result<wire::SearchProductsResponse, Refusal> {
        let sees_all = self.trust.caller(request.metadata()).is_admin();
        let search = Search::read(request.get_ref(), sees_all)?;
        let (products, total) = self.catalog.search(&search).await?;
        let extent = search.page.extent(total);
        Ok(wire::SearchProductsResponse {
            products: products
                .iter()
                .map(|product| product.to_wire(&self.currency))
                .collect(),
            pagination: Some(wire::Pagination {
                page: extent.page,
                limit: extent.limit,
                total: extent.total,
                pages: extent.pages,
                has_next: extent.has_next,
                has_prev: extent.has_prev,
            }),
        })
    }

    async fn new_category(
        &self,
        request: Request<wire::CreateCategoryRequest>,
    ) -> Result<wire::Category, Refusal> {
        self.admin(request.metadata())?;
        let request = request.get_ref();
        let mut fields = Fields::default();
        let id = Uuid::now_v7();
        let category = wire::Category {
            category_id: id.to_string(),
            name: fields.text("name", &request.name, 1, 100),
            parent_id: request.parent_id.clone(),
            description: fields.text("description", &request.description, 0, 1000),
        };
        let parent =
            (!request.parent_id.is_empty()).then(|| fields.id("parent_id", &request.parent_id));
        fields.check()?;
        self.catalog.create_category(&category, id, parent).await?;
        Ok(category)
    }
}

/// Whatever left the catalog is gone for customers.
fn visible(product: Option<Product>, id: Uuid, sees_all: bool) -> Result<Product, Refusal> {
    product
        .filter(|product| product.is_active || sees_all)
        .ok_or_else(|| Refusal::not_found("product", "product_id", &id.to_string()))
}

#[tonic::async_trait]
impl ProductsService for Products {
    type StreamProductsStream = ReceiverStream<Result<wire::Product, Status>>;

    async fn get_product(
        &self,
        request: Request<wire::GetProductRequest>,
    ) -> Result<Response<wire::Product>, Status> {
        let sees_all = self.trust.caller(request.metadata()).is_admin();
        let id = id("product_id", &request.get_ref().product_id)?;
        let product = visible(self.catalog.seen(id).await?, id, sees_all)?;
        Ok(Response::new(product.to_wire(&self.currency)))
    }

    async fn get_complete_product(
        &self,
        request: Request<wire::GetProductRequest>,
    ) -> Result<Response<wire::CompleteProduct>, Status> {
        let product = self.get_product(request).await?.into_inner();
        Ok(Response::new(wire::CompleteProduct {
            in_stock: product.available_quantity > 0,
            product: Some(product),
            rating: None,
            partial: vec!["reviews".to_owned()],
        }))
    }

    async fn get_products(
        &self,
        request: Request<wire::GetProductsRequest>,
    ) -> Result<Response<wire::GetProductsResponse>, Status> {
        let sees_all = self.trust.caller(request.metadata()).is_admin();
        let ids = ids("product_ids", &request.get_ref().product_ids)?;
        let products = self.catalog.products(&ids).await?;
        let products = products
            .iter()
            .filter(|product| product.is_active || sees_all);
        let products = products
            .map(|product| product.to_wire(&self.currency))
            .collect();
        Ok(Response::new(wire::GetProductsResponse { products }))
    }

    async fn search_products(
        &self,
        request: Request<wire::SearchProductsRequest>,
    ) -> Result<Response<wire::SearchProductsResponse>, Status> {
        Ok(Response::new(self.found(request).await?))
    }

    async fn list_products(
        &self,
        request: Request<wire::SearchProductsRequest>,
    ) -> Result<Response<wire::SearchProductsResponse>, Status> {
        Ok(Response::new(self.found(request).await?))
    }

    async fn stream_products(
        &self,
        request: Request<wire::SearchProductsRequest>,
    ) -> Result<Response<Self::StreamProductsStream>, Status> {
        let sees_all = self.trust.caller(request.metadata()).is_admin();
        let mut search = Search::read(request.get_ref(), sees_all)?;
        // A page at a time is read ahead; whoever reads slowly holds one page in memory, not the catalog.
        search.page = Page {
            page: 1,
            limit: 100,
            ..search.page
        };
        let (sender, receiver) = tokio::sync::mpsc::channel(100);
        let (catalog, currency) = (self.catalog.clone(), self.currency.clone());
        // Ends with the catalog, or when the caller is gone.
        tokio::spawn(async move {
            loop {
                let (products, total) = match catalog.search(&search).await {
                    Ok(found) => found,
                    Err(refusal) => return drop(sender.send(Err(refusal.into())).await),
                };
                for product in products {
                    if sender.send(Ok(product.to_wire(&currency))).await.is_err() {
                        return;
                    }
                }
                if !search.page.extent(total).has_next {
                    return;
                }
                search.page.page += 1;
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn check_availability(
        &self,
        request: Request<wire::CheckAvailabilityRequest>,
    ) -> Result<Response<wire::CheckAvailabilityResponse>, Status> {
        self.service(request.metadata())?;
        let mut fields = Fields::default();
        let wanted = Wanted::read(&mut fields, &request.get_ref().items);
        fields.check().map_err(Status::from)?;
        let ids: Vec<_> = wanted.0.keys().copied().collect();
        let products = self.catalog.products(&ids).await?;
        let items: Vec<_> = wanted
            .0
            .iter()
            .map(|(id, quantity)| {
                let product = products
                    .iter()
                    .find(|product| product.id == *id && product.is_active);
                let available = product.map_or(0, Product::available);
                wire::Availability {
                    product_id: id.to_string(),
                    requested: narrow(*quantity),
                    available: narrow(available),
                    is_available: product.is_some() && available >= *quantity,
                }
            })
            .collect();
        let all_available = items.iter().all(|item| item.is_available);
        Ok(Response::new(wire::CheckAvailabilityResponse {
            items,
            all_available,
        }))
    }

    async fn reserve_inventory(
        &self,
        request: Request<wire::ReserveInventoryRequest>,
    ) -> Result<Response<wire::Reservation>, Status> {
        self.counted("reserve", self.reserve(request).await)
    }

    async fn release_inventory(
        &self,
        request: Request<wire::ReleaseInventoryRequest>,
    ) -> Result<Response<wire::Reservation>, Status> {
        self.counted("release", self.release(request).await)
    }

    async fn commit_inventory(
        &self,
        request: Request<wire::CommitInventoryRequest>,
    ) -> Result<Response<wire::Reservation>, Status> {
        self.counted("commit", self.commit(request).await)
    }

    async fn restock_inventory(
        &self,
        request: Request<wire::RestockInventoryRequest>,
    ) -> Result<Response<wire::Reservation>, Status> {
        self.counted("restock", self.restock(request).await)
    }

    async fn get_reservation(
        &self,
        request: Request<wire::GetReservationRequest>,
    ) -> Result<Response<wire::Reservation>, Status> {
        self.service(request.metadata())?;
        let order = id("order_id", &request.get_ref().order_id)?;
        Ok(Response::new(self.inventory.reservation(order).await?))
    }

    async fn create_product(
        &self,
        request: Request<wire::CreateProductRequest>,
    ) -> Result<Response<wire::Product>, Status> {
        let caller = self.admin(request.metadata())?;
        let product = Product::new(request.get_ref(), Uuid::now_v7(), time::now())?;
        self.catalog.create(&product, caller.actor()).await?;
        Ok(Response::new(product.to_wire(&self.currency)))
    }

    async fn update_product(
        &self,
        request: Request<wire::UpdateProductRequest>,
    ) -> Result<Response<wire::Product>, Status> {
        let caller = self.admin(request.metadata())?;
        let request = request.get_ref();
        let id = id("product_id", &request.product_id)?;
        let change = |product: &mut Product| product.change(request, time::now());
        let product = self.catalog.change(id, caller.actor(), change).await?;
        Ok(Response::new(product.to_wire(&self.currency)))
    }

    async fn delete_product(
        &self,
        request: Request<wire::DeleteProductRequest>,
    ) -> Result<Response<()>, Status> {
        let caller = self.admin(request.metadata())?;
        let id = id("product_id", &request.get_ref().product_id)?;
        let delete = |product: &mut Product| {
            let request = wire::UpdateProductRequest {
                is_active: Some(false),
                ..Default::default()
            };
            if product.is_active {
                product.change(&request, time::now())
            } else {
                Ok(())
            }
        };
        self.catalog.change(id, caller.actor(), delete).await?;
        Ok(Response::new(()))
    }

    async fn adjust_stock(
        &self,
        request: Request<wire::AdjustStockRequest>,
    ) -> Result<Response<wire::Product>, Status> {
        Ok(Response::new(self.adjust(request).await?))
    }

    async fn create_category(
        &self,
        request: Request<wire::CreateCategoryRequest>,
    ) -> Result<Response<wire::Category>, Status> {
        Ok(Response::new(self.new_category(request).await?))
    }

    async fn list_categories(
        &self,
        _: Request<wire::ListCategoriesRequest>,
    ) -> Result<Response<wire::ListCategoriesResponse>, Status> {
        let categories = self.catalog.categories().await?;
        Ok(Response::new(wire::ListCategoriesResponse { categories }))
    }
}

pub(super) fn id(field: &str, text: &str) -> Result<Uuid, Refusal> {
    let mut fields = Fields::default();
    let id = fields.id(field, text);
    fields.check()?;
    Ok(id)
}

fn ids(field: &str, texts: &[String]) -> Result<Vec<Uuid>, Refusal> {
    let mut fields = Fields::default();
    if texts.len() > 100 {
        fields.wrong(field, "has more than 100 ids");
    }
    let ids = texts.iter().take(100).enumerate();
    let ids = ids
        .map(|(at, text)| fields.id(&format!("{field}[{at}]"), text))
        .collect();
    fields.check()?;
    Ok(ids)
}
