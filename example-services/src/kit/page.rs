//! Pages of a list (SHOP-803): page 1, 10 a page, at most 100, by `created_at`, newest first.

use super::rules::Fields;

/// Which page, in which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// From 1.
    pub page: i64,
    /// How many on a page.
    pub limit: i64,
    /// The column's name: one of those that the list may be sorted by.
    pub sort_by: &'static str,
    /// The last first.
    pub descending: bool,
}

/// How far the list goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// This page.
    pub page: i32,
    /// How many on a page.
    pub limit: i32,
    /// How many in all.
    pub total: i32,
    /// How many pages.
    pub pages: i32,
    /// There is one after this.
    pub has_next: bool,
    /// There is one before this.
    pub has_prev: bool,
}

impl Page {
    /// Reads what a client asked for; what is wrong goes into `fields`. `columns` may be sorted by; the first is the
    /// default.
    pub fn read(
        fields: &mut Fields,
        page: i32,
        limit: i32,
        sort_by: &str,
        order: &str,
        columns: &[&'static str],
    ) -> Self {
        if page < 0 {
            fields.wrong("page", "must be 1 or more");
        }
        if !(0..=100).contains(&limit) {
            fields.wrong("limit", "must be 1 to 100");
        }
        let sort_by = match columns.iter().find(|column| **column == snake(sort_by)) {
            Some(column) => *column,
            None => {
                if !sort_by.is_empty() {
                    fields.wrong("sort_by", format!("must be one of {}", columns.join(", ")));
                }
                columns.first().copied().unwrap_or("created_at")
            }
        };
        if !matches!(order, "" | "asc" | "desc") {
            fields.wrong("order", "must be asc or desc");
        }
        Self {
            page: i64::from(page.max(1)),
            limit: if limit == 0 { 10 } else { limit.into() },
            sort_by,
            descending: order != "asc",
        }
    }

    /// How many come before it.
    pub fn offset(&self) -> i64 {
        (self.page - 1).saturating_mul(self.limit)
    }

    /// `ORDER BY …`, made of constants only; `id` decides between equals, so that pages do not overlap.
    pub fn order(&self) -> String {
        let way = if self.descending { "DESC" } else { "ASC" };
        format!(" ORDER BY {} {way}, id {way} ", self.sort_by)
    }

    /// How far a list of `total` goes from here.
    pub fn extent(&self, total: i64) -> Extent {
        let pages = (total + self.limit - 1) / self.limit.max(1);
        let narrow = |number: i64| i32::try_from(number).unwrap_or(i32::MAX);
        Extent {
            page: narrow(self.page),
            limit: narrow(self.limit),
            total: narrow(total),
            pages: narrow(pages),
            has_next: self.page < pages,
            has_prev: self.page > 1 && total > 0,
        }
    }
}

/// `createdAt` is taken as `created_at` (DEC-46).
fn snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 2);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_said_is_the_first_ten_newest_first() {
        let mut fields = Fields::default();
        let page = Page::read(&mut fields, 0, 0, "", "", &["created_at", "price"]);
        assert!(fields.check().is_ok());
        assert_eq!(page.order(), " ORDER BY created_at DESC, id DESC ");
        assert_eq!((page.offset(), page.limit), (0, 10));
        let extent = page.extent(11);
        assert_eq!(
            (extent.pages, extent.has_next, extent.has_prev),
            (2, true, false)
        );
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let mut fields = Fields::default();
        Page::read(&mut fields, -1, 101, "price; DROP", "up", &["created_at"]);
        let refusal = fields.check().unwrap_err();
        let names: Vec<_> = refusal
            .bad_fields()
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(names, ["page", "limit", "sort_by", "order"]);
    }

    #[test]
    fn camel_case_is_taken_too() {
        let mut fields = Fields::default();
        assert_eq!(
            Page::read(&mut fields, 1, 1, "createdAt", "asc", &["created_at"]).sort_by,
            "created_at"
        );
        assert!(fields.check().is_ok());
    }
}
