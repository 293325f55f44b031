//! Whether this process shares a GPU by way of NVIDIA's Multi-Process Service, and which part of it
//! the service grants. Only looks: no service is started or changed.

/// The variable by which a launcher limits a client (NVIDIA's "Multi-Process Service", "Volta MPS
/// Execution Resource Provisioning").
const PERCENTAGE: &str = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE";

/// A process that uses a GPU through the service.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MpsClient {
    /// Per cent of the GPU's threads that it was limited to, above 0; `None` without a limit.
    pub thread_percentage: Option<f64>,
}

impl MpsClient {
    /// What there is to say of a process on a GPU whose driver says whether the service is there
    /// ([`CudaIdentity::shared_by_mps`](crate::CudaIdentity)), and of its environment.
    pub fn of_process(shared_by_mps: Option<bool>) -> Option<Self> {
        Self::new(shared_by_mps, std::env::var(PERCENTAGE).ok().as_deref())
    }

    fn new(shared_by_mps: Option<bool>, percentage: Option<&str>) -> Option<Self> {
        // Without a service the variable means nothing.
        shared_by_mps.filter(|is_there| *is_there)?;
        let number = percentage.and_then(|text| text.trim().parse::<f64>().ok());
        Some(Self {
            thread_percentage: number.filter(|it| *it > 0.0 && *it < 100.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_counts_where_the_service_is() {
        let check = |by_mps, text, expect: Option<Option<f64>>| {
            let found = MpsClient::new(by_mps, text);
            assert_eq!(found.map(|it| it.thread_percentage), expect, "{text:?}");
        };
        check(None, Some("50"), None);
        check(Some(false), Some("50"), None);
        check(Some(true), None, Some(None));
        check(Some(true), Some("50"), Some(Some(50.0)));
        check(Some(true), Some(" 12.5 "), Some(Some(12.5)));
        check(Some(true), Some("100"), Some(None));
        check(Some(true), Some("half"), Some(None));
        check(Some(true), Some("NaN"), Some(None));
    }
}
