//! Calls to the services that an order needs (SHOP-103, SHOP-104): each with a deadline, our credentials and the step's
//! idempotency key, and an answer that says whether a failure is for good. Nothing here retries: the saga does.

use std::time::{Duration, Instant};

use tonic::{Code, Response, Status, transport::Channel};
use uuid::Uuid;

use super::{
    breaker::{Breaker, Rule},
    domain::Line,
    saga::{Failure, Saga, Step},
};
use crate::{
    contracts::{
        payments::{self, payments_service_client::PaymentsServiceClient},
        products::{self, products_service_client::ProductsServiceClient},
        users::{self, users_service_client::UsersServiceClient},
    },
    kit::{
        channel::{Identity, to},
        crash,
        money::Money,
        refusal::Refusal,
    },
};

/// Where the others are, and how long they may take.
#[derive(Clone, Debug)]
pub struct Partners {
    users: UsersServiceClient<Channel>,
    products: ProductsServiceClient<Channel>,
    payments: PaymentsServiceClient<Channel>,
    identity: Identity,
    breaker: Breaker,
    /// For one call to users or products.
    pub(super) step: Duration,
    /// For one call to payments, which waits for the processor.
    pub(super) payment: Duration,
}

/// What products hold for an order.
#[derive(Clone, Debug, PartialEq)]
pub enum Stock {
    /// Nothing, and never did.
    Unknown,
    /// Held, at these prices.
    Held(Vec<Line>, String),
    /// Sold.
    Committed,
    /// Given back, or run out.
    Gone,
}

/// What payments knows of an order.
#[derive(Clone, Debug, PartialEq)]
pub enum Paid {
    /// Nothing.
    Unknown,
    /// Begun, and at no end.
    Open,
    /// Taken.
    Taken(String),
    /// Taken in part, or not any more.
    GivenBack,
    /// Refused or given up.
    Failed(String),
}

impl Partners {
    /// With addresses such as `http://127.0.0.1:9001`. No call is made yet.
    pub fn new(
        [users, products, payments]: [&str; 3],
        identity: Identity,
        [step, payment]: [Duration; 2],
        rule: Rule,
    ) -> Result<Self, String> {
        Ok(Self {
            users: UsersServiceClient::new(to(users)?),
            products: ProductsServiceClient::new(to(products)?),
            payments: PaymentsServiceClient::new(to(payments)?),
            identity,
            breaker: Breaker::new(rule),
            step,
            payment,
        })
    }

    /// Step 1.
    pub async fn validate_user(&self, saga: &Saga) -> Result<(), Failure> {
        let asked = users::ValidateUserRequest {
            user_id: saga.user_id.clone(),
        };
        let key = saga.key(Step::ValidateUser);
        let request = self.identity.request(asked, self.step, Some(&key));
        let mut client = self.users.clone();
        let answer = call("ValidateUser", self.step, client.validate_user(request));
        if answer.await?.is_valid {
            return Ok(());
        }
        let unknown = Refusal::not_found("user", "user_id", &saga.user_id);
        Err(Failure::of(&unknown))
    }

    /// Who has ordered, for a notice.
    pub async fn user(&self, id: &str) -> Result<users::User, Failure> {
        let user_id = id.into();
        let asked = users::GetUserRequest { user_id };
        let request = self.identity.request(asked, self.step, None);
        let mut client = self.users.clone();
        call("GetUser", self.step, client.get_user(request)).await
    }

    /// Step 2: the lines with their prices, and the currency.
    pub async fn reserve(&self, saga: &Saga) -> Result<(Vec<Line>, String), Failure> {
        let items = saga.data.asked.lines.iter().map(|line| products::Item {
            product_id: line.product_id.clone(),
            quantity: line.quantity as i32,
        });
        let asked = products::ReserveInventoryRequest {
            order_id: saga.order_id.to_string(),
            items: items.collect(),
            idempotency_key: saga.key(Step::ReserveInventory),
        };
        let request = self.identity.request(asked, self.step, None);
        let mut client = self.products.clone();
        let answer = call(
            "ReserveInventory",
            self.step,
            client.reserve_inventory(request),
        );
        match stock(answer.await?)? {
            Stock::Held(lines, currency) => Ok((lines, currency)),
            _ => Err(gone()),
        }
    }

    /// What products hold for the order.
    pub async fn stock(&self, order: Uuid) -> Result<Stock, Failure> {
        let asked = products::GetReservationRequest {
            order_id: order.to_string(),
        };
        let request = self.identity.request(asked, self.step, None);
        let mut client = self.products.clone();
        match call("GetReservation", self.step, client.get_reservation(request)).await {
            Ok(reservation) => stock(reservation),
            Err(failure) if failure.code == Code::NotFound as i32 => Ok(Stock::Unknown),
            Err(failure) => Err(failure),
        }
    }

    /// The first half of step 5.
    pub async fn commit(&self, saga: &Saga) -> Result<(), Failure> {
        let asked = products::CommitInventoryRequest {
            order_id: saga.order_id.to_string(),
            idempotency_key: saga.key(Step::ConfirmOrder),
        };
        let request = self.identity.request(asked, self.step, None);
        let mut client = self.products.clone();
        let answer = call(
            "CommitInventory",
            self.step,
            client.commit_inventory(request),
        );
        match stock(answer.await?)? {
            Stock::Committed => Ok(()),
            _ => Err(gone()),
        }
    }

    /// Takes step 2 back, also when its stock was committed.
    pub async fn release(&self, saga: &Saga) -> Result<(), Failure> {
        let asked = products::ReleaseInventoryRequest {
            order_id: saga.order_id.to_string(),
            reservation_id: String::new(),
            idempotency_key: saga.undo_key("reserve"),
        };
        let request = self.identity.request(asked, self.step, None);
        let mut client = self.products.clone();
        let answer = call(
            "ReleaseInventory",
            self.step,
            client.release_inventory(request),
        )
        .await?;
        if stock(answer)? != Stock::Committed {
            return Ok(());
        }
        let asked = products::RestockInventoryRequest {
            order_id: saga.order_id.to_string(),
            idempotency_key: saga.undo_key("commit"),
        };
        let request = self.identity.request(asked, self.step, None);
        let mut client = self.products.clone();
        call(
            "RestockInventory",
            self.step,
            client.restock_inventory(request),
        )
        .await
        .map(drop)
    }

    /// Step 4: the payment's id. Nobody is asked while payments is away.
    pub async fn pay(&self, saga: &Saga) -> Result<String, Failure> {
        if !self.breaker.admits(Instant::now()) {
            return Err(Failure {
                not_asked: true,
                ..Failure::of(&payments_away())
            });
        }
        let asked = payments::ProcessPaymentRequest {
            order_id: saga.order_id.to_string(),
            user_id: saga.user_id.clone(),
            amount: Money::from_minor(saga.data.sums.total).to_string(),
            currency: saga.data.currency.clone(),
            method: saga.data.asked.payment_method.clone(),
            token: saga.data.asked.payment_token.clone(),
            idempotency_key: saga.key(Step::ProcessPayment),
        };
        let request = self.identity.request(asked, self.payment, None);
        let mut client = self.payments.clone();
        let payment = call(
            "ProcessPayment",
            self.payment,
            client.process_payment(request),
        );
        let payment = self.heard(payment.await)?;
        match paid(&payment) {
            Paid::Taken(id) => Ok(id),
            Paid::Failed(reason) => Err(payment_failed(&reason)),
            _ => Err(Failure::of(&Refusal::unavailable(
                "the payment is under way",
                Duration::from_secs(1),
            ))),
        }
    }

    /// What payments knows of the order.
    pub async fn paid(&self, order: Uuid) -> Result<Paid, Failure> {
        let asked = payments::GetPaymentRequest {
            order_id: order.to_string(),
            payment_id: String::new(),
        };
        let request = self.identity.request(asked, self.step, None);
        let mut client = self.payments.clone();
        match self.heard(call("GetPayment", self.step, client.get_payment(request)).await) {
            Ok(payment) => Ok(paid(&payment)),
            Err(failure) if failure.code == Code::NotFound as i32 => Ok(Paid::Unknown),
            Err(failure) => Err(failure),
        }
    }

    /// Takes step 4 back.
    pub async fn refund(&self, saga: &Saga) -> Result<(), Failure> {
        let why = saga.why.as_ref().map_or("", |why| why.reason.as_str());
        let asked = payments::RefundPaymentRequest {
            order_id: saga.order_id.to_string(),
            payment_id: String::new(),
            amount: String::new(),
            reason: why.to_string(),
            idempotency_key: saga.undo_key("refund"),
        };
        let request = self.identity.request(asked, self.payment, None);
        let mut client = self.payments.clone();
        let refunded = call(
            "RefundPayment",
            self.payment,
            client.refund_payment(request),
        );
        self.heard(refunded.await).map(drop)
    }

    /// What came of a call to payments is told to the breaker.
    fn heard<T>(&self, answer: Result<T, Failure>) -> Result<T, Failure> {
        let silent = answer.as_ref().is_err_and(|failure| failure.silent);
        self.breaker.heard(!silent, Instant::now());
        answer
    }

    /// Whether payments is not asked at present.
    pub fn payments_rest(&self) -> bool {
        self.breaker.is_open(Instant::now())
    }

    /// Whether payments answers at all.
    pub async fn payments_up(&self) -> bool {
        match self.paid(Uuid::nil()).await {
            Ok(_) => true,
            Err(failure) => !failure.temporary,
        }
    }
}

/// One call. Its deadline also holds here, should the other side not heed it.
async fn call<T>(
    name: &str,
    within: Duration,
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Failure> {
    crash::at(&["calling", name]);
    let answer = tokio::time::timeout(within, answer).await;
    crash::at(&["called", name]);
    match answer {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => {
            let mut failure = Failure::of(&Refusal::from_status(&status));
            failure.silent = !Refusal::is_told_by_a_service(&status)
                && matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded);
            // Between services these are mistakes of the installation, which somebody puts right.
            failure.temporary |= matches!(
                status.code(),
                Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented
            );
            Err(failure)
        }
        Err(_) => Err(Failure {
            silent: true,
            ..Failure::of(&Refusal::new(
                Code::DeadlineExceeded,
                "DEADLINE_EXCEEDED",
                "a service did not answer in time",
            ))
        }),
    }
}

fn stock(reservation: products::Reservation) -> Result<Stock, Failure> {
    use products::ReservationState as S;
    Ok(match reservation.state() {
        S::Held => {
            let lines = reservation.items.into_iter().map(|item| {
                let price = Money::parse(&item.unit_price);
                Ok(Line {
                    product_id: item.product_id,
                    quantity: item.quantity.into(),
                    unit_price: price.map_err(|_| strange())?.minor(),
                })
            });
            Stock::Held(lines.collect::<Result<_, _>>()?, reservation.currency)
        }
        S::Committed => Stock::Committed,
        S::Released | S::Expired | S::Restocked => Stock::Gone,
        S::Unspecified => return Err(strange()),
    })
}

fn paid(payment: &payments::Payment) -> Paid {
    use payments::PaymentStatus as S;
    match payment.status() {
        S::Completed if payment.refund_amount == Money::ZERO.to_string() => {
            Paid::Taken(payment.payment_id.clone())
        }
        S::Completed | S::Refunded => Paid::GivenBack,
        S::Failed => Paid::Failed(payment.failure_reason.clone()),
        S::Pending | S::Authorized | S::Processing | S::Refunding | S::Unspecified => Paid::Open,
    }
}

/// Nobody is asked for money at present.
pub(super) fn payments_away() -> Refusal {
    let words = "payments is away; send the order again later";
    Refusal::new(Code::Unavailable, "PAYMENTS_AWAY", words).retry_after(Duration::from_secs(5))
}

/// The payment was refused, as found out by asking.
pub(super) fn payment_failed(reason: &str) -> Failure {
    let refusal = Refusal::new(
        Code::FailedPrecondition,
        "PAYMENT_FAILED",
        "the payment was refused; use another payment method",
    );
    Failure::of(&refusal.with("reason", reason))
}

/// The reservation is no more, so the order cannot be made.
pub(super) fn gone() -> Failure {
    Failure::new(
        Code::FailedPrecondition,
        "RESERVATION_GONE",
        "the items are no longer held; order again",
    )
}

/// An answer that the contract does not know.
fn strange() -> Failure {
    Failure::new(
        Code::Internal,
        "STRANGE_ANSWER",
        "a service answered strangely",
    )
}
