//! Requests without a model call: threads and messages.

use super::StepContext;
use crate::BenchError;
use crate::load::Load;
use crate::load::median;
use crate::load::percentile;
use crate::load::repeat;

impl StepContext<'_> {
    pub(super) async fn create_thread(&mut self, callers: usize) -> Result<(), BenchError> {
        let api = self.subject.api.clone();
        let bound = self.plan.bound();
        let work = repeat(callers, bound, move |_| {
            let api = api.clone();
            async move { api.create_thread().await }
        });
        let (load, cost) = self.metered(work).await?;
        self.put_calls("create-thread", callers, &load);
        let ms = cost.server.as_secs_f64() * 1e3 / load.count() as f64;
        self.put(format!("create-thread.{callers}.server-cpu"), ms);
        Ok(())
    }

    pub(super) async fn add_message(&mut self, callers: usize) -> Result<(), BenchError> {
        let api = self.subject.api.clone();
        let mut threads = Vec::new();
        for _ in 0..callers {
            threads.push(api.create_thread().await?);
        }
        let bound = self.plan.bound();
        let work = repeat(callers, bound, move |number| {
            let (api, thread) = (api.clone(), threads[number % threads.len()].clone());
            async move { api.add_message(&thread).await }
        });
        let (load, _) = self.metered(work).await?;
        self.put_calls("add-message", callers, &load);
        Ok(())
    }

    pub(super) async fn list_messages(&mut self, callers: usize) -> Result<(), BenchError> {
        self.list("list", callers).await.map(|_| ())
    }

    /// Lists messages before and after the table is filled with other threads' messages.
    pub(super) async fn full_table(&mut self) -> Result<(), BenchError> {
        let before = self.list("list-before", 1).await?;
        let thread = self.filled_thread().await?;
        let copies = self.plan.table_messages / 100;
        let database = self.subject.database.as_ref();
        let database = database.ok_or(BenchError::NoDatabase)?;
        database.copy_thread(&thread, copies, 0).await?;
        let full = self.list("list-full", 1).await?;
        self.put("list-full.growth", full / before);
        Ok(())
    }

    /// The median in milliseconds.
    async fn list(&mut self, name: &str, callers: usize) -> Result<f64, BenchError> {
        let thread = self.filled_thread().await?;
        let api = self.subject.api.clone();
        let bound = self.plan.bound();
        let work = repeat(callers, bound, move |_| {
            let (api, thread) = (api.clone(), thread.clone());
            async move { api.list_messages(&thread, 100).await }
        });
        let (load, _) = self.metered(work).await?;
        self.put_calls(name, callers, &load);
        Ok(median(&load.ms))
    }

    /// A thread with a hundred messages.
    async fn filled_thread(&self) -> Result<String, BenchError> {
        let api = &self.subject.api;
        let thread = api.create_thread().await?;
        for _ in 0..100 {
            api.add_message(&thread).await?;
        }
        Ok(thread)
    }

    fn put_calls<T>(&mut self, name: &str, callers: usize, load: &Load<T>) {
        self.put(format!("{name}.{callers}.p50"), median(&load.ms));
        self.put(format!("{name}.{callers}.p99"), percentile(&load.ms, 0.99));
        self.put(format!("{name}.{callers}.rate"), load.rate());
    }
}
