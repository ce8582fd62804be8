//! Cursor pagination.

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    Asc,
    /// The API's default.
    #[default]
    Desc,
}

/// The requested page of a list. Cursors are ids of objects in the list.
#[derive(Debug, Clone)]
pub struct PageRequest {
    pub limit: i64,
    /// Sort order of the whole list, also when paging backwards: `after` and `before` refer to it.
    pub order: Order,
    pub after: Option<String>,
    pub before: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Page<T> {
    pub data: Vec<T>,
    /// Whether more objects follow in the direction of paging.
    pub has_more: bool,
}

impl<T> Page<T> {
    pub fn map<U>(self, convert: impl FnMut(T) -> U) -> Page<U> {
        Page {
            data: self.data.into_iter().map(convert).collect(),
            has_more: self.has_more,
        }
    }
}
