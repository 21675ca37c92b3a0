// `--feature-gates` of etcd 3.6: what had been experimental flags, as Name=true,Name=false. Each gate is the flag that it was.
extension ServeSettings {
    private static let gates = [
        "InitialCorruptCheck": "experimental-initial-corrupt-check", "LeaseCheckpoint": "experimental-enable-lease-checkpoint",
        "LeaseCheckpointPersist": "experimental-enable-lease-checkpoint-persist", "CompactHashCheck": "experimental-compact-hash-check-enabled",
        "TxnModeWriteWithSharedBuffer": "experimental-txn-mode-write-with-shared-buffer", "StopGRPCServiceOnDefrag": "experimental-stop-grpc-service-on-defrag",
    ]
    /// Gates of etcd's that open nothing here.
    private static let others: Set<String> = ["AllAlpha", "AllBeta", "SetMemberLocalAddr"]

    mutating func openGates() throws(CommandFailure) {
        for part in list("feature-gates") {
            func wrong(_ what: String) -> CommandFailure { CommandFailure(description: "--feature-gates \(part): \(what)", status: 64) }
            let words = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            guard words.count == 2, let isOpen = ServeFlag.truth(words[1]) else { throw wrong("expected Name=true or Name=false") }
            if let name = ServeSettings.gates[words[0]] {
                guard !isGiven(name) else { throw wrong("--\(name) says the same: give one of the two") }
                set(name, "\(isOpen)")
                if isOpen, case .idle(let reason) = ServeFlags.flag(name).standing { warn("--feature-gates \(part) has no effect: \(reason)") }
            } else {
                guard ServeSettings.others.contains(words[0]) else { throw wrong("there is no such feature") }
                warn("--feature-gates \(part) has no effect here")
            }
        }
    }
}
