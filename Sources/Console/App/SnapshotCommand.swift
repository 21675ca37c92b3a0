import ArgumentParser
import Base
import Client
import Foundation
import Server

/// Snapshots in etcd's format, with the names and meanings of etcdctl and etcdutl.
struct SnapshotCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "snapshot",
        abstract: "Save, describe and restore snapshots: etcd's own files, in both directions.",
        subcommands: [Save.self, Status.self, Restore.self]
    )
}

extension SnapshotCommand {
    struct Save: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Save the database of one member to a file, as etcdctl snapshot save does.",
            discussion: "Works with etcd and with quarterdeck's own nodes. The file appears under its name when it is whole and its checksum is right."
        )
        @Argument(help: ArgumentHelp("The new file.", valueName: "file")) var file: String
        @OptionGroup var connection: ConnectionFlags

        func run() throws {
            let options = try connection.options(environment: ProcessInfo.processInfo.environment)
            guard options.endpoints.count == 1 else {
                throw CommandFailure(description: "snapshot must be requested to one selected node, not multiple: \(options.endpoints.joined(separator: ", "))", status: 64)
            }
            let configuration: ClientConfiguration
            let client: EtcdClient
            do {
                configuration = try ClusterSession.configuration(options)
                client = try EtcdClient(configuration: configuration)
            } catch { throw CommandFailure(description: "\(error)") }
            // As etcdctl: no end to the time that it may take, unless it was given.
            let hasTimeout = connection.commandTimeout != nil || ProcessInfo.processInfo.environment["ETCDCTL_COMMAND_TIMEOUT"]?.isEmpty == false
            let timeout = hasTimeout ? configuration.requestTimeout : nil
            let path = file
            let size = try waiting {
                do {
                    let size = try await SnapshotSave.run(client, to: path, timeout: timeout)
                    await client.close()
                    return size
                } catch {
                    await client.close()
                    throw error
                }
            }
            print("Snapshot saved at \(path) (\(DecimalBytes.text(size)))")
        }
    }

    struct Status: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Describe a snapshot file: hash, revision, keys and size.",
            discussion: "Reads snapshots of etcd and of quarterdeck, and checks their structure; restore checks the checksum too."
        )
        enum Format: String, ExpressibleByArgument, CaseIterable { case simple, json, fields, table }

        @Argument(help: ArgumentHelp("The snapshot.", valueName: "file")) var file: String
        @Option(name: [.customLong("write-out"), .customShort("w")], help: "Form of the answer: simple, json, fields or table.") var format = Format.simple

        func run() throws {
            let meter = ProgressLine()
            let status: SnapshotStatus
            do { status = try SnapshotStatus.read(file) { meter.show($0) } } catch {
                meter.clear()
                throw CommandFailure(description: "\(error)")
            }
            meter.clear()
            print(Self.text(status, format))
        }

        static func text(_ status: SnapshotStatus, _ format: Format) -> String {
            let row = [String(status.hash, radix: 16), "\(status.revision)", "\(status.totalKeys)", DecimalBytes.text(status.totalBytes)]
            switch format {
            case .simple: return row.joined(separator: ", ")
            case .json:
                return "{\"hash\":\(status.hash),\"revision\":\(status.revision),\"totalKey\":\(status.totalKeys),\"totalSize\":\(status.totalBytes)}"
            case .fields:
                return "\"Hash\" : \(status.hash)\n\"Revision\" : \(status.revision)\n\"Keys\" : \(status.totalKeys)\n\"Size\" : \(status.totalBytes)"
            case .table:
                let heads = ["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE"]
                let widths = zip(heads, row).map { max($0.count, $1.count) }
                let rule = "+" + widths.map { String(repeating: "-", count: $0 + 2) }.joined(separator: "+") + "+"
                func line(_ cells: [String], _ pad: (String, Int) -> String) -> String { "| " + zip(cells, widths).map(pad).joined(separator: " | ") + " |" }
                func right(_ text: String, _ width: Int) -> String { String(repeating: " ", count: width - text.count) + text }
                func centre(_ text: String, _ width: Int) -> String {
                    let left = (width - text.count) / 2
                    return String(repeating: " ", count: left) + text + String(repeating: " ", count: width - text.count - left)
                }
                return [rule, line(heads, centre), rule, line(row, right), rule].joined(separator: "\n")
            }
        }
    }

    struct Restore: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Build a member's data directory from a snapshot of etcd or of quarterdeck.",
            discussion: """
                Members of the new cluster are each restored from the same file, with their own --name, and then started with \
                `quarterdeck serve` and the same --initial-cluster and --initial-cluster-token.
                """
        )
        @Argument(help: ArgumentHelp("The snapshot.", valueName: "file")) var file: String
        @Option(name: .customLong("data-dir"), help: "Where the data go; must be empty or not exist. (default: NAME.etcd)") var dataDir: String?
        @Option(name: .customLong("wal-dir"), help: "Where the log goes; must be empty or not exist. (default: below the data directory)") var walDir: String?
        @Option(help: "Name of this member. (default: default)") var name = "default"
        @Option(name: .customLong("initial-cluster"), help: "All members of the new cluster, name=url separated by commas. (default: NAME=http://localhost:2380)") var initialCluster: String?
        @Option(name: .customLong("initial-cluster-token"), help: "Tells the new cluster from others.") var initialClusterToken = "etcd-cluster"
        @Option(name: .customLong("initial-advertise-peer-urls"), help: "Where peers find this member.") var initialAdvertisePeerURLs = "http://localhost:2380"
        @Flag(name: .customLong("skip-hash-check"), help: "Do not compare the file's checksum (one that was copied from a data directory has none).") var skipHashCheck = false
        @Option(name: .customLong("bump-revision"), help: "How far to raise the revision, so that it is not below what clients have seen.") var bumpRevision: UInt64 = 0
        @Flag(name: .customLong("mark-compacted"), help: "All before the raised revision counts as compacted. Needed with --bump-revision, and only with it.") var markCompacted = false

        func run() throws {
            guard (bumpRevision > 0) == markCompacted else { throw CommandFailure(description: "--mark-compacted required if --bump-revision > 0", status: 64) }
            var configuration = NodeConfiguration()
            configuration.name = name
            configuration.dataDirectory = dataDir ?? ""
            if let walDir, !walDir.isEmpty { configuration.logDirectory = URL(fileURLWithPath: walDir).standardizedFileURL.path }
            configuration.initialClusterToken = initialClusterToken
            do {
                configuration.initialAdvertisePeerURLs = try NodeURL.list(parsing: initialAdvertisePeerURLs)
                configuration.initialCluster = try NodeConfiguration.parseInitialCluster(initialCluster ?? "\(name)=http://localhost:2380")
            } catch { throw CommandFailure(description: "\(error)", status: 64) }
            guard configuration.initialCluster.contains(where: { $0.name == name }) else {
                throw CommandFailure(description: "couldn't find local name \"\(name)\" in the initial cluster configuration", status: 64)
            }
            var restore = SnapshotRestore(path: file, configuration: configuration)
            restore.skipsHashCheck = skipHashCheck
            restore.bumpRevision = bumpRevision
            let meter = ProgressLine()
            let outcome: SnapshotRestore.Outcome
            do { outcome = try restore.run { meter.show($0) } } catch {
                meter.clear()
                throw CommandFailure(description: "\(error)")
            }
            meter.clear()
            for bucket in outcome.unknownBuckets { Quarterdeck.complain("bucket \"\(bucket)\" is none of etcd's and was left out") }
            print("Restored \(outcome.entries) entries up to revision \(outcome.revision) as member \(outcome.member) of cluster \(outcome.cluster) in \(dataDir ?? "\(name).etcd")")
        }
    }
}

/// Receives a snapshot into a file.
enum SnapshotSave {
    static func run(_ client: EtcdClient, to path: String, timeout: TimeSpan?) async throws -> UInt64 {
        let part = path + ".part"
        let descriptor = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw CommandFailure(description: "could not open \(part): \(String(cString: strerror(errno)).lowercased())") }
        let meter = ProgressLine()
        defer {
            meter.clear()
            // Under its own name by now, or of no use.
            unlink(part)
        }
        var hash = SnapshotHash()
        var written: UInt64 = 0
        do {
            defer { close(descriptor) }
            do {
                for try await piece in client.snapshot(options: CallOptions(timeout: timeout)) {
                    try write(piece.bytes, descriptor, part)
                    hash.update(piece.bytes)
                    written += UInt64(piece.bytes.count)
                    meter.show(SnapshotProgress(step: "saving", doneBytes: written, totalBytes: written + piece.remainingBytes))
                }
            } catch let failure as CommandFailure { throw failure } catch { throw CommandFailure(description: "snapshot: \(error)") }
            guard hash.endsWithItsHash else {
                throw CommandFailure(description: written % 512 == 32 ? "the snapshot came damaged: its sha256 checksum is wrong [bytes: \(written)]" : "sha256 checksum not found [bytes: \(written)]")
            }
            guard fsync(descriptor) == 0 else { throw CommandFailure(description: "could not sync \(part): \(String(cString: strerror(errno)).lowercased())") }
        }
        guard rename(part, path) == 0 else { throw CommandFailure(description: "could not rename \(part) to \(path): \(String(cString: strerror(errno)).lowercased())") }
        let directory = open(URL(fileURLWithPath: path).deletingLastPathComponent().path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        if directory >= 0 {
            fsync(directory)
            close(directory)
        }
        return written
    }

    private static func write(_ bytes: [UInt8], _ descriptor: Int32, _ path: String) throws {
        var done = 0
        while done < bytes.count {
            let moved = bytes.withUnsafeBytes { Foundation.write(descriptor, $0.baseAddress! + done, $0.count - done) }
            if moved < 0, errno == EINTR { continue }
            guard moved > 0 else { throw CommandFailure(description: "could not write \(path): \(String(cString: strerror(errno)).lowercased())") }
            done += moved
        }
    }
}

/// Runs `body` and waits for it, as a command does that has nothing else to do.
private func waiting<T: Sendable>(_ body: @escaping @Sendable () async throws -> T) throws -> T {
    let outcome = Outcome<T>()
    let done = DispatchSemaphore(value: 0)
    Task.detached {
        do { outcome.result = .success(try await body()) } catch { outcome.result = .failure(error) }
        done.signal()
    }
    done.wait()
    return try outcome.result!.get()
}

private final class Outcome<T: Sendable>: @unchecked Sendable {
    // @unchecked: written before the semaphore is signalled, read after.
    var result: Result<T, any Error>?
}

extension ProgressLine {
    func show(_ progress: SnapshotProgress) {
        let share = progress.totalBytes == 0 ? 100 : progress.doneBytes * 100 / progress.totalBytes
        show("\(progress.step) \(share)%  \(DecimalBytes.text(progress.doneBytes)) of \(DecimalBytes.text(progress.totalBytes))")
    }
}

/// Sizes as etcd's tools print them: powers of 1000, one digit behind the point below ten.
enum DecimalBytes {
    static func text(_ bytes: UInt64) -> String {
        guard bytes >= 10 else { return "\(bytes) B" }
        let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"]
        // The logarithm decides the unit before anything is rounded, as there.
        let exponent = Int(log(Double(bytes)) / log(1_000))
        let value = (Double(bytes) / pow(1_000, Double(exponent)) * 10 + 0.5).rounded(.down) / 10
        return String(format: value < 10 ? "%.1f" : "%.0f", value) + " " + units[exponent]
    }
}
