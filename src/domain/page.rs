//! Cursor pagination, the same for every list.

/// Direction by time of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Oldest first.
    Asc,
    /// Newest first, the API's default.
    #[default]
    Desc,
}

/// Which part of a list a client wants. Cursors are ids of objects in the list.
#[derive(Debug, Clone)]
pub struct PageRequest {
    /// How many objects at most.
    pub limit: i64,
    /// Direction of the whole list, also when paging backwards.
    pub order: Order,
    /// Only what comes after this object in the chosen order.
    pub after: Option<String>,
    /// Only what comes before this object in the chosen order.
    pub before: Option<String>,
}

/// One page of a list, in the requested order.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// The objects.
    pub data: Vec<T>,
    /// Whether the list goes on in the direction of paging.
    pub has_more: bool,
}

impl<T> Page<T> {
    /// The same page of something else.
    pub fn map<U>(self, convert: impl FnMut(T) -> U) -> Page<U> {
        Page {
            data: self.data.into_iter().map(convert).collect(),
            has_more: self.has_more,
        }
    }
}
