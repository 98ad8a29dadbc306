//! THE STORY of one report: who speaks, what it says as far as that can be, and what is remembered of it. The
//! stages are `reviewer`, `read`, `reading` and `fleet`; `server` hands requests in, `forward` passes them on
//! to the leader, `pages` shows what was learnt. Nothing here writes to the API server but reviews of tokens.

mod answer;
mod answers;
mod fleet;
mod forward;
mod metrics;
mod pace;
mod pages;
mod read;
mod reading;
mod refuse;
mod reviewer;
mod server;
mod setup;
mod token;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use jiff::Timestamp;
use larder_wire::report::Reply;

pub use fleet::{
    Counted, Desired, Fleet, Health, NodeState, NodeView, Reason, Recorded, RegistryView, Summary,
    UpstreamSummary, Usage, WARMING, Withdrawal, WorstNode,
};
pub use metrics::ReportMetrics;
pub use pace::Rates;
pub use reading::{Clamped, Counters, Reading, RegistryReading, Standing};
pub use server::serve;
pub use setup::{Leader, Limits, Reporter, Reports};

use answer::{Answer, json};
use refuse::Refusal;
use setup::fraction;
use token::Token;

impl Reports {
    async fn report(&self, request: Request<Incoming>) -> Result<Response<Answer>, Refusal> {
        let (head, body) = request.into_parts();
        let reporter = self.reviewer.agent(&Token::of(&head.headers)?).await?;
        let body = read::receive(body, self.limits.body).await?;
        let (reading, clamped) = Reading::of(read::read(&head.headers, &body)?, Timestamp::now());
        if reading.node != reporter.node {
            return Err(Refusal::OtherNode { node: reporter.node });
        }
        let recorded = self.fleet.record(&reporter, reading, Timestamp::now());
        let absurd = recorded.absurd.then_some("growth");
        clamped.into_iter().chain(absurd).for_each(|reason| self.metrics.clamped(reason));
        self.metrics.nodes(recorded.known);
        let Recorded { desired_generation, next_report_after, .. } = recorded;
        Ok(json(StatusCode::OK, &Reply { desired_generation, next_report_after }))
    }
}

#[cfg(test)]
mod tests;
