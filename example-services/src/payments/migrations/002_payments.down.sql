DROP TABLE transactions;
DROP TABLE receipts;
DROP TABLE payment_methods;
DROP TABLE known_orders;
DROP TABLE refunds;
DROP TABLE payments;
