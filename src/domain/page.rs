//! Cursor pagination.

/// Sort order by time of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Oldest first.
    Asc,
    /// Newest first, the API's default.
    #[default]
    Desc,
}

/// The requested page of a list. Cursors are ids of objects in the list.
#[derive(Debug, Clone)]
pub struct PageRequest {
    /// Maximum number of objects.
    pub limit: i64,
    /// Sort order of the whole list, also when paging backwards.
    pub order: Order,
    /// Return only objects after this one in the chosen order.
    pub after: Option<String>,
    /// Return only objects before this one in the chosen order.
    pub before: Option<String>,
}

/// One page of a list, in the requested order.
#[derive(Debug, Clone)]
pub struct Page<T> {
    pub data: Vec<T>,
    /// Whether more objects follow in the direction of paging.
    pub has_more: bool,
}

impl<T> Page<T> {
    /// Converts each object.
    pub fn map<U>(self, convert: impl FnMut(T) -> U) -> Page<U> {
        Page {
            data: self.data.into_iter().map(convert).collect(),
            has_more: self.has_more,
        }
    }
}
